"""Residual finite scalar quantization: finer steps at each level, indices that decode to what was seen."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.quantizers import CodebookOptions, LatentOptions, make_quantizer
from hvq_jax.quantizers.residual import sum_of_codes
from hvq_jax.quantizers.residual_scalar import finer_digits, finer_numbers
from hvq_jax.quantizers.scalar import bound, digits_of_all, halves, index_of_digits
from tests.quantizers.compiled import compiled

LEVELS, DEPTH, D = (5, 4, 3), 3, 6


def quantizer(levels=LEVELS, depth=DEPTH):
    options = CodebookOptions(family="residual_fsq", levels=levels, depth=depth)
    return compiled(make_quantizer(LatentOptions(mode="vq", dim=D), options))


@functools.partial(jax.jit, static_argnums=(0, 1))
def points(levels, depth):
    """Return the digits of all points of a level, their numbers, and the digits and indices found for these."""
    digits = digits_of_all(levels)
    numbers = finer_numbers(digits, levels, depth)
    return digits, numbers, finer_digits(numbers, levels, depth), index_of_digits(digits, levels)


@settings(max_examples=4)  # each is compiled anew
@given(st.lists(st.integers(3, 9), min_size=1, max_size=3).map(tuple), st.integers(1, 3))
def test_every_point_of_a_finer_level_is_its_own_nearest(levels, depth):
    digits, numbers, found, indices = points(levels, depth)
    np.testing.assert_array_equal(found, digits)
    np.testing.assert_array_equal(indices, np.arange(math.prod(levels)))
    largest = [0.5 / (level - 1) ** (depth - 1) for level in levels]
    np.testing.assert_allclose(np.abs(numbers).max(0), largest, rtol=1e-6)


@settings(max_examples=4)
@given(st.lists(st.integers(3, 9), min_size=1, max_size=3).map(tuple), st.integers(0, 99))
def test_each_level_leaves_at_most_its_share_of_the_step(levels, seed):
    numbers = np.random.default_rng(seed).normal(0, 3, (200, len(levels))).astype(np.float32)
    numbers = jax.jit(bound, static_argnums=1)(numbers, levels)
    steps = np.array(levels) - 1
    for depth in (2, 3, 4):
        rounded, indices = quantizer(levels, depth).round(numbers)
        assert (np.abs(rounded - numbers) <= 0.5 / steps ** (depth - 1) + 1e-5).all()
        assert indices.dtype == jnp.int32
        assert indices.shape == (200, depth)
        assert (indices >= 0).all()
        assert (indices < math.prod(levels)).all()


def test_the_first_level_is_plain_finite_scalar_quantization():
    model = quantizer()
    params, state = model.init(jax.random.key(0))
    plain = compiled(make_quantizer(model.latent_options, CodebookOptions(family="fsq", levels=LEVELS)))
    z_e = jax.random.normal(jax.random.key(1), (4, 3, D))
    np.testing.assert_array_equal(model.codes(params, state)[0], plain.codes(params, state))
    latent = model.quantize(params, state, z_e)
    np.testing.assert_array_equal(latent.indices[..., 0], plain.quantize(params, state, z_e).indices)


@pytest.mark.optimised
@pytest.mark.parametrize("jit", [False, True])
def test_decoding_indices_is_the_forward_pass_bit_for_bit(jit):
    model = make_quantizer(quantizer().latent_options, quantizer().codebook_options)
    params, state = jax.jit(model.init)(jax.random.key(0))
    params["up"]["bias"] = jax.random.normal(jax.random.key(3), (D,))
    z_e = 3 * jax.random.normal(jax.random.key(1), (2, 3, 3, D))
    quantize, codes, vectors = (jax.jit(f) if jit else f for f in (model.quantize, model.codes, model.vectors))
    latent = quantize(params, state, z_e)
    np.testing.assert_array_equal(sum_of_codes(latent.indices, codes(params, state)), latent.z_bar)
    np.testing.assert_array_equal(vectors(params, state, latent.indices), latent.z_bar)
    np.testing.assert_array_equal(latent.z_q, latent.z_bar)
    rounded, _ = model.round(model.numbers(params, z_e))
    np.testing.assert_allclose(latent.z_q, model.up(params, rounded), atol=1e-5)


def test_gradients_pass_the_roundings_as_they_are():
    model = quantizer()
    params, state = model.init(jax.random.key(0))
    z_e = jax.random.normal(jax.random.key(1), (D,))
    down, up = (np.asarray(params[name]["kernel"], np.float64) for name in ("down", "up"))
    jacobian = jax.jit(jax.jacobian(lambda z: model.quantize(params, state, z).z_bar))(z_e)
    slope = np.diag(jax.jit(jax.jacobian(lambda y: bound(y, LEVELS)))(z_e @ params["down"]["kernel"]))
    np.testing.assert_allclose(jacobian, (down * (slope / halves(LEVELS)) @ up).T, rtol=1e-4, atol=1e-5)


def test_every_level_counts_its_codes():
    model = quantizer()
    params, state = model.init(jax.random.key(0))
    _, step = model.step(params, state, jax.random.normal(jax.random.key(1), (4, 3, D)), jax.random.key(2), None)
    assert step.state.frequency.shape == (DEPTH, 60)
    np.testing.assert_array_equal(step.state.frequency.sum(-1), np.full(DEPTH, 12))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 1}, "codebook.depth=1: codebook.family=residual_fsq needs from 2 to 4 levels"),
        ({"levels": (4, 2)}, r"codebook.levels=\(4, 2\): must be at least 3 each"),
    ],
)
def test_levels_that_do_not_become_finer_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        quantizer(**{"levels": LEVELS, "depth": DEPTH, **options})
