"""Batch normalisation with a custom backward pass that takes two sums where plain differentiation takes four.

Images may be bfloat16; all computations are in float32, and only the results are rounded.
"""

import functools

import jax
import jax.numpy as jnp

Saved = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def channel_sum(x: jax.Array) -> jax.Array:
    """Sum over all axes but the last, `[..., C]` to `[C]` float32, even if `x` is bfloat16.

    On CPU this is a matrix product with ones, which is twice as fast.
    """
    return jax.lax.platform_dependent(x.astype(jnp.float32), cpu=_sum_as_product, default=_sum)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, axis=tuple(range(x.ndim - 1)))


def _sum_as_product(x: jax.Array) -> jax.Array:
    rows = x.reshape(-1, x.shape[-1])
    return (jnp.ones((1, len(rows)), x.dtype) @ rows)[0]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def batch_normalize(
    axis_name: str | None, epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return x̂ scale + bias with x̂ = (x − mean) / √(var + ε), and the statistics.

    Statistics are taken over all axes but the last and over all devices of `axis_name`.

    Args:
        axis_name: name of the device axis, or None.
        epsilon: ε.
        x: `[..., C]`, float32 or bfloat16.
        scale: `[C]` float32.
        bias: `[C]` float32.

    Returns:
        The result `[..., C]` in the dtype of `x`; mean and biased variance, `[C]` float32, which propagate no gradient.
    """
    return _forward(axis_name, epsilon, x, scale, bias)[0]


def _forward(
    axis_name: str | None, epsilon: float, x: jax.Array, scale: jax.Array, bias: jax.Array
) -> tuple[tuple[jax.Array, jax.Array, jax.Array], Saved]:
    (mean,) = _means(axis_name, x)
    (var,) = _means(axis_name, jnp.square(x - mean))
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (x - mean) * (scale * inverse) + bias
    return (y.astype(x.dtype), mean, var), (x, scale, mean, inverse)


def _backward(
    axis_name: str | None, epsilon: float, saved: Saved, cotangents: tuple[jax.Array, jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return ∂x = scale/√(var + ε) (g − mean(g) − x̂ mean(g x̂)); Ioffe and Szegedy, arXiv:1502.03167, section 3."""
    del epsilon
    x, scale, mean, inverse = saved
    g = cotangents[0].astype(jnp.float32)
    normalized = (x - mean) * inverse
    # This device's share only: the gradients of all parameters are averaged over devices later.
    bias_gradient, scale_gradient = channel_sum(g), channel_sum(g * normalized)
    count = x.size // x.shape[-1]
    mean_g, mean_gx = _over_devices(axis_name, (bias_gradient / count, scale_gradient / count))
    x_gradient = (scale * inverse) * (g - mean_g - normalized * mean_gx)
    return x_gradient.astype(x.dtype), scale_gradient, bias_gradient


batch_normalize.defvjp(_forward, _backward)


def _means(axis_name: str | None, *arrays: jax.Array) -> tuple[jax.Array, ...]:
    return _over_devices(axis_name, tuple(channel_sum(x) / (x.size // x.shape[-1]) for x in arrays))


def _over_devices(axis_name: str | None, values: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    return jax.lax.pmean(values, axis_name) if axis_name else values
