"""Metrics against numpy and dm_pix, over ragged batches and over devices."""

from functools import partial

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays

from hvq_jax.metrics import Mean, Moments, mse, perplexity, psnr, share_used, ssim

# Relative, of sums of some hundred float32 numbers in another order than numpy's.
SUM_TOLERANCE = 1e-5

# One shape for all examples: each new one is compiled anew.
NUM_VALUES = 50

jitted_ssim = jax.jit(ssim)

values_and_cuts = st.tuples(
    arrays.arrays(
        np.float32,
        NUM_VALUES,
        elements=st.floats(-8, 8, width=32, allow_subnormal=False),
    ),
    st.integers(1, NUM_VALUES - 1),
)


def random_images(seed: int, shape: tuple[int, ...] = (3, 16, 12, 2)) -> jax.Array:
    return jax.random.uniform(jax.random.key(seed), shape, minval=-1.0, maxval=1.0)


def padded(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a batch padded with NaN, and its mask."""
    rest = NUM_VALUES - len(values)
    return np.pad(values, (0, rest), constant_values=np.nan), np.arange(NUM_VALUES) < len(values)


@jax.jit
def sums_of_both(first, second):
    return Mean.of(*first) + Mean.of(*second), Moments.of(*first) + Moments.of(*second)


@given(values_and_cuts)
@settings(max_examples=50, deadline=None)
def test_sums_of_ragged_batches_are_those_of_the_whole(case):
    values, cut = case
    mean, moments = sums_of_both(padded(values[:cut]), padded(values[cut:]))
    assert mean.count == moments.count == NUM_VALUES
    expected = values.mean(dtype=np.float64)
    np.testing.assert_allclose(mean.value, expected, atol=8 * SUM_TOLERANCE)
    np.testing.assert_allclose(moments.mean, expected, atol=8 * SUM_TOLERANCE)
    # The variance is a difference of means of squares about 1, each of at most 81.
    variance = values.var(dtype=np.float64)
    np.testing.assert_allclose(np.square(moments.std), variance, atol=81 * SUM_TOLERANCE)


@pytest.mark.parametrize("kind", [Mean, Moments])
def test_masked_out_values_count_for_nothing_whatever_they_are(kind):
    values = jnp.array([[1.0, jnp.nan], [3.0, jnp.inf]])
    mask = jnp.array([[True, False], [True, False]])
    masked = kind.of(values, mask)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, masked, kind.of(jnp.array([1.0, 3.0]))))


def test_the_mean_of_truth_values_is_a_share():
    assert Mean.of(jnp.array([True, False, False, True, True])).value == jnp.float32(0.6)


def test_the_spread_of_gains_close_to_one_is_resolved():
    # From squares of the gains themselves, which float32 keeps in steps of 1e-7, this variance of 1e-6
    # would be off by several per cent.
    gains = (1.0 + 1e-3 * np.random.default_rng(0).standard_normal(4096)).astype(np.float32)
    moments = Moments.of(jnp.asarray(gains))
    np.testing.assert_allclose(moments.std, gains.std(dtype=np.float64), rtol=1e-4)


def test_nothing_counted_is_nan():
    nothing = jnp.zeros(3, bool)
    assert jnp.isnan(Mean.of(jnp.ones(3), nothing).value)
    assert jnp.isnan(Moments.of(jnp.ones(3), nothing).mean)
    assert jnp.isnan(Moments.of(jnp.ones(3), nothing).std)


def test_psum_over_an_axis_is_addition():
    values = jnp.arange(12.0).reshape(4, 3)

    def over_devices(part: jax.Array) -> tuple[Mean, Moments]:
        return jax.lax.psum((Mean.of(part), Moments.of(part)), "device")

    mean, moments = jax.vmap(over_devices, axis_name="device", out_axes=None)(values)
    assert mean.value == values.mean()
    np.testing.assert_allclose(moments.std, np.std(np.arange(12.0)), rtol=SUM_TOLERANCE)


def test_mse_and_psnr_are_numpys():
    x, y = random_images(0), random_images(1)
    squares = np.square(np.asarray(x, np.float64) - np.asarray(y, np.float64))
    expected = squares.mean(axis=(1, 2, 3))
    np.testing.assert_allclose(mse(x, y), expected, rtol=SUM_TOLERANCE)
    # On [0, 1] the squared error is a quarter of that on [-1, 1].
    np.testing.assert_allclose(psnr(x, y), -10 * np.log10(expected / 4), rtol=SUM_TOLERANCE)


def test_ssim_of_one_window_is_the_formula_of_the_paper():
    x, y = random_images(0, (2, 11, 11, 1)), random_images(1, (2, 11, 11, 1))
    a, b = [(np.asarray(image[..., 0], np.float64) + 1) / 2 for image in (x, y)]
    bell = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window = np.outer(bell, bell) / np.outer(bell, bell).sum()

    def average(image: np.ndarray) -> np.ndarray:
        return (window * image).sum(axis=(1, 2))

    mean_a, mean_b = average(a), average(b)
    covariance = average(a * b) - mean_a * mean_b
    variances = average(a * a) - mean_a**2 + average(b * b) - mean_b**2
    c1, c2 = 0.01**2, 0.03**2
    expected = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    expected /= (mean_a**2 + mean_b**2 + c1) * (variances + c2)
    # Variances in float32 are differences of means of squares: some 1e-6 of variances near 0.08.
    np.testing.assert_allclose(jitted_ssim(x, y), expected, atol=1e-4)


def smooth_pairs(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return images in [-1, 1] with structure, where SSIM is not that of noise, and the same with noise."""
    rows, columns = np.mgrid[: shape[1], : shape[2]]
    waves = [np.sin(0.5 * (n + 1) * rows + 0.3 * columns + n) for n in range(shape[0] * shape[3])]
    images = np.moveaxis(np.reshape(waves, (shape[0], shape[3], *shape[1:3])), 1, -1)
    noise = np.random.default_rng(0).normal(0, 0.5, shape)
    return images.astype(np.float32), np.clip(images + noise, -1, 1).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 28, 28, 1), (2, 12, 17, 3), (2, 8, 9, 1)])
def test_psnr_and_ssim_are_those_of_dm_pix(shape):
    """Of grey and colour images, and of some that are smaller than the window of the paper."""
    x, y = smooth_pairs(shape)
    on_unit = (x + 1) / 2, (y + 1) / 2
    window = min(11, *shape[1:3])
    expected = jax.jit(partial(dm_pix.ssim, filter_size=window))(*on_unit)
    assert (expected < 0.95).all()
    np.testing.assert_allclose(jax.jit(ssim)(x, y), expected, atol=1e-4)
    np.testing.assert_allclose(psnr(x, y), dm_pix.psnr(*on_unit), rtol=1e-5)


def test_half_the_error_is_six_decibels():
    x, noise = random_images(3), random_images(4)
    gained = psnr(x, x + 0.1 * noise) - psnr(x, x + 0.2 * noise)
    np.testing.assert_allclose(gained, 20 * np.log10(2), atol=1e-4)


def test_the_axes_and_channels_of_images_are_alike():
    """Mirrored or transposed images have the same metrics, and grey images those of their colour version."""
    x, y = smooth_pairs((2, 16, 16, 1))
    for metric in (jax.jit(mse), jax.jit(psnr), jitted_ssim):
        expected = metric(x, y)
        for axes in ((0, 2, 1, 3), (0, 1, 2, 3)):
            moved = [np.transpose(images, axes)[:, :, ::-1] for images in (x, y)]
            np.testing.assert_allclose(metric(*moved), expected, rtol=1e-5)
        in_colour = [np.repeat(images, 3, axis=-1) for images in (x, y)]
        np.testing.assert_allclose(metric(*in_colour), expected, rtol=1e-5)


@pytest.mark.parametrize("side", [8, 16])
def test_identical_images(side):
    x = random_images(2, (2, side, side + 4, 3))
    assert jnp.array_equal(mse(x, x), jnp.zeros(2))
    assert jnp.array_equal(psnr(x, x), jnp.full(2, 100.0))
    np.testing.assert_allclose(jitted_ssim(x, x), 1.0, atol=1e-6)  # one rounding of a quotient


def test_ssim_falls_with_noise_and_is_symmetric():
    x, noise = random_images(3), random_images(4)
    slight, strong = jitted_ssim(x, x + 0.1 * noise), jitted_ssim(x, x + noise)
    assert (slight < 1.0).all()
    assert (slight > strong).all()
    # Only the order of float32 products and sums differs.
    np.testing.assert_allclose(jitted_ssim(x, noise), jitted_ssim(noise, x), atol=1e-6)


@pytest.mark.parametrize("metric", [jax.jit(mse), jax.jit(psnr), jitted_ssim])
def test_each_image_has_its_own_figure(metric):
    x, y = random_images(5), random_images(6)
    values = metric(x, y)
    assert values.shape == (3,)
    np.testing.assert_array_equal(metric(x[::-1], y[::-1]), values[::-1])
    assert metric(x, y.at[1].set(0.0))[1] != values[1]
    np.testing.assert_array_equal(metric(x, y.at[1].set(0.0))[::2], values[::2])


@given(arrays.arrays(np.int32, 20, elements=st.integers(0, 10_000)).filter(np.any))
@settings(max_examples=50, deadline=None)
def test_perplexity_and_share_used_are_numpys(counts):
    used = counts[counts > 0] / counts.sum()
    expected = np.exp(-np.sum(used * np.log(used)))
    np.testing.assert_allclose(perplexity(jnp.asarray(counts)), expected, rtol=SUM_TOLERANCE)
    np.testing.assert_allclose(share_used(jnp.asarray(counts)), np.mean(counts > 0), rtol=1e-6)


def test_perplexity_counts_the_codes_in_even_use():
    counts = jnp.array([7, 0, 7, 7, 0, 7])
    np.testing.assert_allclose(perplexity(counts), 4.0, rtol=SUM_TOLERANCE)
    # A leaky table holds fractions: only proportions matter.
    np.testing.assert_allclose(perplexity(counts * 1e-3), 4.0, rtol=SUM_TOLERANCE)


def test_no_counts_are_no_codes():
    assert perplexity(jnp.zeros(5, jnp.int32)) == 0
    assert share_used(jnp.zeros(5, jnp.int32)) == 0
