"""Convolutions by minimal filtering against sums of products in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.networks import convolution, resampling, winograd
from hvq_jax.networks.convolution import convolve
from hvq_jax.networks.resampling import double_resolution, halve_resolution, kernel_gradient


def arrays(seed, *shapes):
    draw = np.random.default_rng(seed)
    return [draw.standard_normal(shape).astype(np.float32) for shape in shapes]


def taps_of(x, taps, height, width):
    return [x[:, i : i + height, j : j + width] for i in range(taps[0]) for j in range(taps[1])]


def correlated(x, kernel):
    """The sums of products, in the dtype of `x`."""
    *taps, inputs, outputs = kernel.shape
    height, width = (side - count + 1 for side, count in zip(x.shape[1:3], taps, strict=True))
    weights = kernel.reshape(-1, inputs, outputs)
    return sum(seen @ weight for seen, weight in zip(taps_of(x, taps, height, width), weights, strict=True))


def gradient_of_kernel(x, g):
    """The same for the gradient of the kernel."""
    taps = [side - outputs + 1 for side, outputs in zip(x.shape[1:3], g.shape[1:3], strict=True)]
    sums = [np.einsum("bhwi,bhwo->io", seen, g) for seen in taps_of(x, taps, *g.shape[1:3])]
    return np.stack(sums).reshape(*taps, x.shape[-1], g.shape[-1])


# Taps, and sides of the image.
RECTANGLES = [((2, 3), (8, 9)), ((3, 2), (5, 12)), ((2, 3), (3, 4))]


def error(found, exact):
    return np.sqrt(np.square(found - exact).mean()) / np.sqrt(np.square(exact).mean())


@given(taps=st.sampled_from([2, 3]), seed=st.integers(0, 2**31))
def test_the_transforms_are_exact_in_a_row(taps, seed):
    draw = np.random.default_rng(seed)
    found = winograd.transforms(taps)
    x, kernel = draw.standard_normal(len(found.image)), draw.standard_normal(taps)
    row = found.output @ ((found.kernel @ kernel) * (found.image @ x))
    np.testing.assert_allclose(row, np.correlate(x, kernel), rtol=0, atol=1e-13)


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize(("taps", "sides"), [((3, 3), (9, 9)), ((3, 3), (6, 11)), ((2, 2), (8, 5)), *RECTANGLES])
def test_outputs_and_kernel_gradients_are_the_sums_of_products(monkeypatch, parts, taps, sides):
    height, width = (side - count + 1 for side, count in zip(sides, taps, strict=True))
    x, kernel, g = arrays(0, (6, *sides, 5), (*taps, 5, 7), (6, height, width, 7))
    numbers = 12 * winograd._num_places((height, width), taps)
    monkeypatch.setattr(winograd, "_LARGEST_PART", 6 // parts * numbers)
    assert winograd._in_parts(jnp.asarray(x), numbers).shape[:2] == (parts, 6 // parts)
    wide = [array.astype(np.float64) for array in (x, kernel, g)]
    assert error(jax.jit(winograd.correlate)(x, kernel), correlated(wide[0], wide[1])) < 2e-6
    assert error(jax.jit(winograd.kernel_gradient)(x, g), gradient_of_kernel(wide[0], wide[2])) < 2e-6


@pytest.mark.parametrize("taps", [(2, 2), (2, 3), (3, 2), (3, 3)])
def test_float32_loses_less_than_two_binary_digits_to_xlas_convolution(taps):
    sides = [8 + count - 1 for count in taps]
    x, kernel, g = arrays(1, (4, *sides, 128), (*taps, 128, 32), (4, 8, 8, 32))
    wide = [array.astype(np.float64) for array in (x, kernel, g)]
    plain = partial(convolution._convolve, padding="VALID")
    exact, ours, theirs = correlated(*wide[:2]), jax.jit(winograd.correlate)(x, kernel), jax.jit(plain)(x, kernel)
    assert error(ours, exact) < 4 * error(theirs, exact)
    exact, ours = gradient_of_kernel(wide[0], wide[2]), jax.jit(winograd.kernel_gradient)(x, g)
    theirs = jax.jit(lambda x, kernel, g: jax.vjp(plain, x, kernel)[1](g)[1])(x, kernel, g)
    assert error(ours, exact) < 4 * error(theirs, exact)


def test_a_batch_is_divided_evenly():
    x = jnp.zeros((12, 1))
    shapes = [winograd._in_parts(x, winograd._LARGEST_PART // most).shape[:2] for most in (20, 12, 11, 5, 1)]
    assert shapes == [(1, 12), (1, 12), (2, 6), (3, 4), (12, 1)]
    assert winograd._in_parts(x, 2 * winograd._LARGEST_PART).shape[:2] == (12, 1)
    assert winograd._in_parts(jnp.zeros((127, 1)), winograd._LARGEST_PART // 50).shape[:2] == (1, 127)


def test_it_is_chosen_where_it_saves_products():
    def chosen(side, kernel, channels=64, dtype=jnp.float32):
        return winograd.is_worthwhile((2, side, side, channels), (kernel, kernel, channels, 64), dtype)

    assert [(side, size) for size in (1, 2, 3, 4) for side in (4, 7, 8, 9, 66) if chosen(side, size)] == [
        (8, 2),  # 7×7 outputs
        (9, 2),
        (66, 2),
        (8, 3),  # 6×6 outputs; of 5×5 (7, 3), most of the tiles would be unused
        (9, 3),
        (66, 3),
    ]
    assert not chosen(9, 3, channels=3)
    assert not chosen(9, 3, dtype=jnp.bfloat16)
    assert winograd.is_worthwhile((2, 8, 9, 64), (2, 3, 64, 64), jnp.float32)
    assert not winograd.is_worthwhile((2, 7, 8, 64), (1, 2, 64, 64), jnp.float32)
    assert not winograd.is_worthwhile((2, 10, 13, 64), (4, 7, 64, 64), jnp.float32)


OURS = {
    "convolve": (lambda x, kernel: convolve(x, kernel, ((1, 1), (1, 1))), (2, 8, 7, 32), (3, 3, 32, 40)),
    "pixelcnn": (lambda x, kernel: convolve(x, kernel, ((1, 0), (1, 1))), (2, 7, 7, 32), (2, 3, 32, 40)),
    "halve": (halve_resolution, (2, 14, 16, 32), (4, 4, 32, 40)),
    "double": (double_resolution, (2, 7, 8, 32), (4, 4, 32, 40)),
}


def value_and_gradients(function, x, kernel):
    value, gradients = jax.vjp(function, x, kernel)
    return value, *gradients(value)


@pytest.mark.parametrize("name", OURS)
def test_between_many_channels_the_networks_layers_use_it_on_cpu_only(name):
    function, *shapes = OURS[name]
    x, kernel = arrays(2, *shapes)

    def lowered(platform):
        traced = jax.jit(lambda *given: value_and_gradients(function, *given)).trace(x, kernel)
        return traced.lower(lowering_platforms=(platform,)).as_text()

    assert "stablehlo.convolution" not in lowered("cpu")
    assert lowered("cuda").count("stablehlo.convolution") == 3
    assert "dot_general" not in lowered("tpu")


@pytest.mark.parametrize("name", OURS)
def test_programs_for_any_batch_keep_convolutions(name):
    function, (_, *image), kernel = OURS[name]
    (batch,) = jax.export.symbolic_shape("b")
    shapes = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((batch, *image), kernel)]
    exported = jax.export.export(jax.jit(function), platforms=["cpu"])(*shapes)
    assert "stablehlo.convolution" in str(exported.mlir_module())
    x, weights = arrays(5, (3, *image), kernel)
    assert error(exported.call(x, weights), jax.jit(function)(x, weights)) < 1e-5


@pytest.mark.parametrize("name", OURS)
def test_value_and_gradients_of_the_layers_are_those_of_xlas_convolutions(name):
    function, *shapes = OURS[name]
    theirs = {
        "convolve": lambda x, kernel: convolution._convolve(x, kernel, ((1, 1), (1, 1))),
        "pixelcnn": lambda x, kernel: convolution._convolve(x, kernel, ((1, 0), (1, 1))),
        "halve": resampling._halve,
        "double": resampling._double,
    }
    x, kernel = arrays(3, *shapes)
    found, exact = (jax.jit(partial(value_and_gradients, form))(x, kernel) for form in (function, theirs[name]))
    for one, other in zip(found, exact, strict=True):
        assert error(one, other) < 1e-5


def test_the_kernel_gradient_of_both_resamplings_uses_it():
    large, small = arrays(4, (2, 14, 14, 32), (2, 7, 7, 40))
    exact = np.stack(
        [
            np.einsum(
                "bhwi,bhwo->io",
                np.pad(large, ((0, 0), (1, 1), (1, 1), (0, 0)))[:, i : i + 13 : 2, j : j + 13 : 2].astype(np.float64),
                small.astype(np.float64),
            )
            for i in range(4)
            for j in range(4)
        ]
    ).reshape(4, 4, 32, 40)
    assert error(jax.jit(kernel_gradient)(large, small), exact) < 2e-6
