"""Convolution and normalisation layers with the reference's conventions (PyTorch's), NHWC, float32 parameters.

The mathematics that has a fast form of its own is in `resampling.py` and `normalization.py`.

Convolutions and products are computed in a layer's `dtype`, float32 or bfloat16, and so is its result rounded, unless
`result_dtype` says otherwise. Biases are added in float32: then their gradients, sums over all positions, are summed in
it too. So are the sums of batch normalisation.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.networks.convolution import convolve
from hvq_jax.networks.normalization import batch_normalize
from hvq_jax.networks.resampling import double_resolution, halve_resolution

COMPUTE_DTYPES = ("float32", "bfloat16")


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Xavier-uniform weights (Glorot and Bengio, 2010) for a kernel `[..., in, out]`.

    The values of Flax's initialiser, drawn flat: XLA takes ten times longer to compile a four-dimensional draw on CPU.
    """
    size = math.prod(shape)
    fans = size // shape[-1] + size // shape[-2]
    draw = jax.random.uniform(key, (size,), dtype, -1.0, 1.0)
    return draw.reshape(shape) * math.sqrt(6 / fans)


def _all_but_the_bias(
    inputs: jax.Array, kernel: jax.Array, bias: jax.Array, *, dtype: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What Flax's layers compute with: its own choice would round the bias too."""
    return inputs.astype(dtype), kernel.astype(dtype), bias


def _convolve_as_flax_asks(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, lhs_dilation: Any, rhs_dilation: Any, **options: Any
) -> jax.Array:
    """`convolve`, called as `lax.conv_general_dilated` is."""
    del options
    if {*strides, *lhs_dilation, *rhs_dilation} != {1}:
        raise ValueError("Conv has stride 1 and no dilation; halve_resolution and double_resolution have others")
    return convolve(x, kernel, tuple(padding))


class Conv(nn.Conv):
    """Flax's convolution with stride 1, Xavier-uniform."""

    dtype: Any = "float32"
    kernel_init: Any = xavier_uniform
    promote_dtype: Any = _all_but_the_bias
    conv_general_dilated: Any = _convolve_as_flax_asks

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """`[B, h, w, I]` to `[B, h, w, features]`."""
        return super().__call__(inputs).astype(self.dtype)


class Dense(nn.Dense):
    """Flax's dense layer, Xavier-uniform."""

    dtype: Any = "float32"
    kernel_init: Any = xavier_uniform
    promote_dtype: Any = _all_but_the_bias
    result_dtype: str | None = None

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """`[..., I]` to `[..., features]`."""
        return super().__call__(inputs).astype(self.result_dtype or self.dtype)


def conv(features: int, kernel: int, dtype: str = "float32", *, name: str | None = None) -> Conv:
    """A square convolution with bias, stride 1 and unchanged sides: Xavier-uniform weights, zero bias."""
    padding = (kernel - 1) // 2
    return Conv(features, (kernel, kernel), padding=padding, dtype=dtype, name=name)


class Conv4x4(nn.Module):
    """`halve_resolution` with bias: 4×4, stride 2, padding 1, PyTorch's `Conv2d` conventions."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, 2h, 2w, I]` to `[B, h, w, features]`."""
        return _convolve(self, halve_resolution, x).astype(self.dtype)


class ConvTranspose4x4(nn.Module):
    """`double_resolution` with bias: 4×4, stride 2, padding 1, PyTorch's `ConvTranspose2d` conventions."""

    features: int
    dtype: str = "float32"
    result_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, I]` to `[B, 2h, 2w, features]`."""
        return _convolve(self, double_resolution, x).astype(self.result_dtype or self.dtype)


def _convolve(module: Any, function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """In the module's dtype, to a sum with the bias in float32."""
    kernel = module.param("kernel", xavier_uniform, (4, 4, x.shape[-1], module.features))
    bias = module.param("bias", nn.initializers.zeros, (module.features,))
    return function(x.astype(module.dtype), kernel.astype(module.dtype)) + bias


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, statistics in float32 over every device of `axis_name`.

    Unlike Flax's own it stores the *unbiased* variance (n / (n − 1)), as PyTorch does. In training it normalises with
    the batch and updates the collection `batch_stats`; in evaluation it uses the stored values.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[..., C]` to `[..., C]`, rounded to the dtype of `x`."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        stored_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if not train:
            factor = scale * jax.lax.rsqrt(stored_var.value + self.epsilon)
            return ((x - stored_mean.value) * factor + bias).astype(x.dtype)
        axis_name = None if self.is_initializing() else self.axis_name
        y, mean, var = batch_normalize(axis_name, self.epsilon, x, scale, bias)
        if not self.is_initializing():
            count = x.size // x.shape[-1] * (jax.lax.axis_size(axis_name) if axis_name else 1)
            unbiased = var * (count / max(count - 1, 1))
            keep = self.momentum
            stored_mean.value = keep * stored_mean.value + (1 - keep) * mean
            stored_var.value = keep * stored_var.value + (1 - keep) * unbiased
        return y
