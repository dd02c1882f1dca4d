"""Convolution and normalisation layers with the reference's conventions (PyTorch's), NHWC, float32 parameters."""

import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Xavier-uniform weights (Glorot and Bengio, 2010) for a kernel `[..., in, out]`.

    The values of Flax's initialiser, drawn flat: XLA takes ten times longer to compile a four-dimensional draw on CPU.
    """
    size = math.prod(shape)
    fans = size // shape[-1] + size // shape[-2]
    draw = jax.random.uniform(key, (size,), dtype, -1.0, 1.0)
    return draw.reshape(shape) * math.sqrt(6 / fans)


def conv(features: int, kernel: int, stride: int = 1, *, name: str | None = None) -> nn.Conv:
    """A square convolution with bias that keeps `H/stride`: Xavier-uniform weights, zero bias."""
    padding = (kernel - stride + 1) // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=padding,
        kernel_init=xavier_uniform,
        name=name,
    )


def double_resolution(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Transposed 4×4 convolution with stride 2 and padding 1: `[B,h,w,I] → [B,2h,2w,O]`, kernel `[4,4,I,O]`.

    The kernel is PyTorch's `ConvTranspose2d` weight with its axes moved: tap t of input i adds to output 2i − 1 + t. An
    output therefore sees two input rows, taps (3, 1) if even and (2, 0) if odd: four 2×2 convolutions, one for each
    parity of row and column, whose results interleave. XLA's own transposed convolution is the same in mathematics, but
    its backward pass is tens of times slower on CPU.
    """
    batch, height, width, _ = x.shape
    features = kernel.shape[-1]
    # taps[parity][tap of the 2-wide window, top to bottom]
    taps = jnp.array([[3, 1], [2, 0]])
    phases = kernel[taps][:, :, taps]  # [row parity, row tap, column parity, column tap, I, O]
    phases = phases.transpose(1, 3, 4, 0, 2, 5).reshape(2, 2, kernel.shape[2], 4 * features)
    # Padding inside the convolution would make its backward pass ten times slower on CPU.
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y = jax.lax.conv_general_dilated(padded, phases, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    y = y.reshape(batch, height + 1, width + 1, 2, 2, features)
    rows = jnp.stack([y[:, :-1, :, 0], y[:, 1:, :, 1]], axis=2)  # [B, h, 2, w+1, 2, O]
    both = jnp.stack([rows[:, :, :, :-1, 0], rows[:, :, :, 1:, 1]], axis=4)  # [B, h, 2, w, 2, O]
    return both.reshape(batch, 2 * height, 2 * width, features)


class ConvTranspose4x4(nn.Module):
    """`double_resolution` with bias: 4×4, stride 2, padding 1, PyTorch's `ConvTranspose2d` conventions."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[B, h, w, I]` to `[B, 2h, 2w, features]`."""
        shape = (4, 4, x.shape[-1], self.features)
        kernel = self.param("kernel", xavier_uniform, shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        return double_resolution(x, kernel) + bias


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
        """`[..., C]` to `[..., C]`."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels)
        bias = self.param("bias", nn.initializers.zeros, channels)
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, channels)
        stored_var = self.variable("batch_stats", "var", jnp.ones, channels)
        if train:
            axes = tuple(range(x.ndim - 1))
            axis_name = None if self.is_initializing() else self.axis_name
            mean = _mean(x.astype(jnp.float32), axes, axis_name)
            var = _mean(jnp.square(x.astype(jnp.float32) - mean), axes, axis_name)
            if not self.is_initializing():
                count = x.size // x.shape[-1] * (jax.lax.axis_size(axis_name) if axis_name else 1)
                unbiased = var * (count / max(count - 1, 1))
                keep = self.momentum
                stored_mean.value = keep * stored_mean.value + (1 - keep) * mean
                stored_var.value = keep * stored_var.value + (1 - keep) * unbiased
        else:
            mean, var = stored_mean.value, stored_var.value
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        return (x - mean) * factor + bias


def _mean(x: jax.Array, axes: tuple[int, ...], axis_name: str | None) -> jax.Array:
    mean = jnp.mean(x, axis=axes)
    return jax.lax.pmean(mean, axis_name) if axis_name else mean
