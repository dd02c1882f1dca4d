"""Batch normalisation's custom backward pass against plain differentiation, on one device and over four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.networks import normalization
from hvq_jax.networks.normalization import batch_normalize, channel_sum

EPSILON = 1e-5


def plain(x, scale, bias):
    """Normalise in plain JAX, differentiated automatically."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    var = jnp.square(x - mean).mean(axes)
    return (x - mean) * jax.lax.rsqrt(var + EPSILON) * scale + bias, mean, var


def inputs(seed, *shape):
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, (*shape, 5)).astype(np.float32)
    return x, random.normal(size=5).astype(np.float32), random.normal(size=5).astype(np.float32)


@partial(jax.jit, static_argnums=0)
def gradients(function, weights, x, scale, bias):
    return jax.grad(lambda *arguments: (weights * jnp.sin(function(*arguments)[0])).sum(), (0, 1, 2))(x, scale, bias)


OURS = jax.jit(partial(batch_normalize, None, EPSILON))


@settings(max_examples=5)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
def test_value_and_gradients_are_those_of_plain_differentiation(batch, side, seed):
    arguments = inputs(seed, batch, side, side)
    for ours, theirs in zip(OURS(*arguments), jax.jit(plain)(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = np.random.default_rng(seed + 1).normal(size=arguments[0].shape).astype(np.float32)
    ours = gradients(OURS, weights, *arguments)
    for one, other in zip(ours, gradients(plain, weights, *arguments), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5 * max(np.abs(other).max(), 1))


def test_over_four_devices_the_gradients_are_those_of_the_whole_batch():
    x, scale, bias = inputs(0, 8, 2, 2)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    whole = gradients(plain, weights, x, scale, bias)
    over = jax.pmap(
        partial(gradients, partial(batch_normalize, "devices", EPSILON)), "devices", in_axes=(0, 0, None, None)
    )
    shards = [array.reshape(4, 2, *array.shape[1:]) for array in (weights, x)]
    by_x, by_scale, by_bias = over(*shards, scale, bias)
    np.testing.assert_allclose(by_x.reshape(x.shape), whole[0], rtol=1e-4, atol=1e-5)
    # Those of parameters are each device's share.
    np.testing.assert_allclose(by_scale.sum(0), whole[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_bias.sum(0), whole[2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(7, 3), (2, 4, 5, 3)])
def test_both_forms_of_the_sum_agree(shape):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    expected = x.astype(np.float64).reshape(-1, 3).sum(0)
    for form in (channel_sum, normalization._sum, normalization._sum_as_product):
        np.testing.assert_allclose(form(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", [channel_sum, normalization._sum, normalization._sum_as_product])
def test_sums_of_bfloat16_are_sums_in_float32(form):
    x = jnp.ones((8, 32, 32, 3), jnp.bfloat16)  # added up in bfloat16, ones come no further than 256
    total = jax.jit(form)(x if form is channel_sum else x.astype(jnp.float32))
    assert total.dtype == jnp.float32
    np.testing.assert_array_equal(total, np.full(3, 8192.0))


def test_bfloat16_images_are_normalised_in_float32_and_rounded_once():
    x, scale, bias = inputs(0, 8, 4, 4)
    rounded = jnp.asarray(x, jnp.bfloat16)
    exact = rounded.astype(jnp.float32)
    weights = np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    y, mean, var = batch_normalize(None, EPSILON, rounded, scale, bias)
    y_exact, mean_exact, var_exact = plain(exact, scale, bias)
    np.testing.assert_allclose(mean, mean_exact, rtol=1e-5)
    np.testing.assert_allclose(var, var_exact, rtol=1e-5)

    def pulled_back(x):
        # A linear function of y, whose cotangent is the same in both.
        return jax.grad(
            lambda *args: (weights.astype(jnp.bfloat16) * batch_normalize(None, EPSILON, *args)[0]).sum(
                dtype=jnp.float32
            ),
            (0, 1, 2),
        )(x, scale, bias)

    ours, theirs = pulled_back(rounded), pulled_back(exact)
    assert [y.dtype, ours[0].dtype] == [jnp.bfloat16] * 2
    assert {array.dtype for array in (mean, var, *ours[1:])} == {jnp.dtype("float32")}
    for one, other in zip(((y, *ours)), (y_exact, *theirs), strict=True):
        error = np.abs(np.asarray(one, np.float32) - other)
        assert np.all(error <= 2**-8 * np.abs(other) + 1e-5 * np.abs(other).max())  # half a unit in the last place
