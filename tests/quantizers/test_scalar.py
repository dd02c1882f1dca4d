"""Finite scalar quantization: all levels within reach, indices that decode to what was seen, gradients through it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings, strategies as st
from scipy.stats import norm

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import latent_from_codes
from hvq_jax.quantizers import CodebookOptions, LatentOptions, scalar as fsq
from tests.quantizers.compiled import compiled

LEVELS = (5, 4, 3, 2)
D = 6
LEVEL_LISTS = st.lists(st.integers(2, 9), min_size=1, max_size=4).map(tuple)


# Compiled once for each list of levels.
integers, to_indices, bound = (
    jax.jit(function, static_argnames="levels") for function in (fsq.integers, fsq.to_indices, fsq.bound)
)


def quantizer(levels=LEVELS):
    return fsq.ScalarQuantizer(LatentOptions(mode="vq", dim=D), CodebookOptions(family="fsq", levels=levels))


def test_the_levels_say_how_many_codes_there_are():
    assert quantizer().num_codes == 120  # and not the 512 of the latent's options


@pytest.mark.parametrize("levels", [(), (8, 1)])
def test_levels_that_leave_nothing_to_round_to_are_refused(levels):
    with pytest.raises(ArgumentError, match=r"levels=\(.*: must be integers of at least 2"):
        CodebookOptions(family="fsq", levels=levels)


@given(st.lists(st.integers(2, 10**6), min_size=1, max_size=12).map(tuple))
@example((8,) * 11)
@example((2,) * 31)
@example((2**31 - 1,))
def test_more_codes_than_indices_hold_are_refused(levels):
    product = math.prod(levels)
    if product < 2**31:
        assert fsq.ScalarQuantizer(LatentOptions(mode="vq"), CodebookOptions(levels=levels)).num_codes == product
        assert int(to_indices(jnp.array(levels) - 1 - jnp.array(levels) // 2, levels)) == product - 1
    else:
        with pytest.raises(ArgumentError, match=r"^levels=\(.*must be at most 2147483647$"):
            CodebookOptions(levels=levels)


@settings(max_examples=4)  # each is compiled anew
@given(LEVEL_LISTS)
def test_every_combination_of_levels_has_one_index(levels):
    whole = integers(levels)
    assert whole.shape == (math.prod(levels), len(levels))
    np.testing.assert_array_equal(to_indices(whole, levels), np.arange(math.prod(levels)))
    assert len({tuple(row) for row in np.asarray(whole)}) == math.prod(levels)


@settings(max_examples=4)  # each is compiled anew
@given(LEVEL_LISTS)
def test_numbers_round_to_exactly_their_levels(levels):
    numbers = jnp.linspace(-20.0, 20.0, 4001)[:, None] * jnp.ones(len(levels))
    bounded = bound(numbers, levels)
    for number, level in enumerate(levels):
        expected = np.arange(level) - level // 2
        np.testing.assert_array_equal(np.unique(np.round(bounded[:, number])), expected)
    assert (np.diff(np.asarray(bounded), axis=0) >= -1e-6).all()  # rising, to rounding


def test_normal_numbers_reach_both_halves_of_the_levels_about_equally():
    """Exactly for odd levels and for 2; even ones above keep 0 a level, as the paper has it, and lean to it."""
    levels = tuple(range(2, 17))
    numbers = norm.ppf((np.arange(10_001) + 0.5) / 10_001)[:, None]
    rounded = np.round(bound(jnp.asarray(numbers, jnp.float32), levels))
    for level, column in zip(levels, rounded.T, strict=True):
        middle = (level - 1) / 2 - level // 2
        lower, upper = np.mean(column < middle), np.mean(column > middle)
        assert abs(upper - lower) < (2e-4 if level % 2 or level == 2 else 1.1 / level), level


@pytest.mark.optimised
@pytest.mark.parametrize("jit", [False, True])
def test_decoding_indices_is_the_forward_pass_bit_for_bit(jit):
    model = quantizer()
    params, state = jax.jit(model.init)(jax.random.key(0))
    z_e = 3 * jax.random.normal(jax.random.key(1), (2, 3, 3, D))
    quantize, codes = (jax.jit(f) if jit else f for f in (model.quantize, model.codes))
    latent = quantize(params, state, z_e)
    np.testing.assert_array_equal(latent_from_codes(latent.indices, codes(params, state)), latent.z_bar)
    np.testing.assert_array_equal(latent.z_q, latent.z_bar)
    assert latent.indices.dtype == jnp.int32
    assert len(np.unique(latent.indices)) > 10
    assert latent.discrete.all()


def test_gradients_pass_the_rounding_as_they_are_and_reach_both_maps():
    """d z_bar / d z_e = down · diag(bound′ / ⌊level/2⌋) · up, and the map up sees the rounded numbers."""
    model = compiled(quantizer())
    params, state = model.init(jax.random.key(0))
    z_e = jax.random.normal(jax.random.key(1), (D,))
    down, up = (np.asarray(params[name]["kernel"], np.float64) for name in ("down", "up"))
    jacobian = jax.jit(jax.jacobian(lambda z: model.quantize(params, state, z).z_bar))(z_e)
    slope = np.diag(jax.jit(jax.jacobian(lambda y: fsq.bound(y, LEVELS)))(z_e @ params["down"]["kernel"]))
    halves = np.array([level // 2 for level in LEVELS])
    np.testing.assert_allclose(jacobian, (down * (slope / halves) @ up).T, rtol=1e-4, atol=1e-5)

    gradients = jax.jit(jax.grad(lambda params: jnp.sum(model.quantize(params, state, z_e).z_bar)))(params)
    rounded = np.round(bound(z_e @ params["down"]["kernel"], LEVELS)) / halves
    np.testing.assert_allclose(gradients["up"]["kernel"], np.outer(rounded, np.ones(D)), atol=1e-6)
    np.testing.assert_allclose(gradients["up"]["bias"], np.ones(D), atol=1e-6)
    assert np.abs(gradients["down"]["kernel"]).max() > 0


def test_a_step_learns_nothing_without_a_gradient_but_counts():
    model = compiled(quantizer())
    params, state = model.init(jax.random.key(0))
    z_e = jax.random.normal(jax.random.key(1), (4, 3, D))
    latent, step = model.step(params, state, z_e, jax.random.key(2), None)
    np.testing.assert_array_equal(step.counts, np.bincount(latent.indices.reshape(-1), minlength=120))
    np.testing.assert_array_equal(step.state.frequency, step.counts)
    assert step.state.learned is None
