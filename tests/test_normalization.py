"""Batch normalisation's own backward pass against plain differentiation, on one device and over four."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvq_jax import normalization
from hvq_jax.normalization import batch_normalize, channel_sum

EPSILON = 1e-5


def plain(x, scale, bias):
    """As one would write it, differentiated by JAX."""
    axes = tuple(range(x.ndim - 1))
    mean = x.mean(axes)
    var = jnp.square(x - mean).mean(axes)
    return (x - mean) * jax.lax.rsqrt(var + EPSILON) * scale + bias, mean, var


def inputs(seed, *shape):
    random = np.random.default_rng(seed)
    x = random.normal(3, 2, (*shape, 5)).astype(np.float32)
    return x, random.normal(size=5).astype(np.float32), random.normal(size=5).astype(np.float32)


def gradients(function, weights, x, scale, bias):
    return jax.grad(lambda *arguments: (weights * jnp.sin(function(*arguments)[0])).sum(), (0, 1, 2))(x, scale, bias)


@settings(max_examples=10)
@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 99))
def test_value_and_gradients_are_those_of_plain_differentiation(batch, side, seed):
    arguments = inputs(seed, batch, side, side)
    for ours, theirs in zip(batch_normalize(None, EPSILON, *arguments), plain(*arguments), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    weights = np.random.default_rng(seed + 1).normal(size=arguments[0].shape).astype(np.float32)
    ours = gradients(partial(batch_normalize, None, EPSILON), weights, *arguments)
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
