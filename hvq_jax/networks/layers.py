"""Convolution and normalisation layers with the conventions of the PyTorch reference; NHWC, float32 parameters.

Operations with a specialised fast implementation are in `convolution.py`, `resampling.py`, `normalization.py` and
`product.py`.

Convolutions and products are computed in the layer's `dtype`, float32 or bfloat16, and the result is rounded to it,
unless `result_dtype` is given. Biases are added in float32, so that their gradients, which are sums over all positions,
are also accumulated in float32. So are the sums of batch normalisation.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.networks.convolution import convolve
from hvq_jax.networks.normalization import batch_normalize
from hvq_jax.networks.product import multiply
from hvq_jax.networks.resampling import double_resolution, halve_resolution
from hvq_jax.registry import check_choice

COMPUTE_DTYPES = ("float32", "bfloat16")
SKIPS = ("rectified", "identity")

# The fields of modules that hold one of a set of names.
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "compute_dtype": COMPUTE_DTYPES,
    "dtype": COMPUTE_DTYPES,
    "result_dtype": (*COMPUTE_DTYPES, None),
    "skip": SKIPS,
}


class CheckedModule(nn.Module):
    """A Linen module whose dtypes and other choices are checked when it is made, rather than when it is applied."""

    def __post_init__(self) -> None:
        """Raise ArgumentError for a name that is not one of its field's choices."""
        for name in _CHOICES.keys() & self.__dataclass_fields__.keys():
            check_choice(name, getattr(self, name), _CHOICES[name])
        super().__post_init__()


def xavier_uniform(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
    """Draw Xavier-uniform weights (Glorot and Bengio, 2010) for a kernel `[..., in, out]`.

    The values equal those of Flax's initialiser but are drawn flat: on CPU, XLA takes ten times longer to compile a
    four-dimensional draw.
    """
    size = math.prod(shape)
    fans = size // shape[-1] + size // shape[-2]
    draw = jax.random.uniform(key, (size,), dtype, -1.0, 1.0)
    return draw.reshape(shape) * math.sqrt(6 / fans)


embedding_init = nn.initializers.normal(stddev=1.0)


def _all_but_the_bias(
    inputs: jax.Array, kernel: jax.Array, bias: jax.Array, *, dtype: Any
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Promote the operands of Flax's layers, except the bias, which Flax's default would round too."""
    return inputs.astype(dtype), kernel.astype(dtype), bias


def convolve_as_flax_asks(
    x: jax.Array, kernel: jax.Array, strides: Any, padding: Any, *, lhs_dilation: Any, rhs_dilation: Any, **options: Any
) -> jax.Array:
    """Call `convolve` with the signature of `lax.conv_general_dilated`."""
    del options
    if {*strides, *lhs_dilation, *rhs_dilation} != {1}:
        raise ValueError("Conv supports only stride 1 without dilation; see halve_resolution and double_resolution")
    return convolve(x, kernel, tuple(padding))


class Conv(CheckedModule, nn.Conv):
    """Flax's convolution with stride 1 and Xavier-uniform weights."""

    dtype: Any = "float32"
    kernel_init: Any = xavier_uniform
    promote_dtype: Any = _all_but_the_bias
    conv_general_dilated: Any = convolve_as_flax_asks

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[B, h, w, I]` to `[B, h, w, features]`."""
        return super().__call__(inputs).astype(self.dtype)


def _multiply_as_flax_asks(x: jax.Array, kernel: jax.Array, dimension_numbers: Any, **options: Any) -> jax.Array:
    """Call `multiply` with the signature of `lax.dot_general`."""
    del dimension_numbers, options
    return multiply(x, kernel)


class Dense(CheckedModule, nn.Dense):
    """Flax's dense layer with Xavier-uniform weights."""

    dtype: Any = "float32"
    kernel_init: Any = xavier_uniform
    dot_general: Any = _multiply_as_flax_asks
    promote_dtype: Any = _all_but_the_bias
    result_dtype: str | None = None

    def __call__(self, inputs: jax.Array) -> jax.Array:
        """Map `[..., I]` to `[..., features]`."""
        return super().__call__(inputs).astype(self.result_dtype or self.dtype)


def conv(features: int, kernel: int, dtype: str = "float32", *, name: str | None = None) -> Conv:
    """Return a square convolution that keeps the image size: stride 1, Xavier-uniform weights and zero bias."""
    padding = (kernel - 1) // 2
    return Conv(features, (kernel, kernel), padding=padding, dtype=dtype, name=name)


class Conv4x4(CheckedModule):
    """`halve_resolution` with bias: 4×4, stride 2, padding 1, with the conventions of PyTorch's `Conv2d`."""

    features: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[B, 2h, 2w, I]` to `[B, h, w, features]`."""
        return _convolve(self, halve_resolution, x).astype(self.dtype)


class ConvTranspose4x4(CheckedModule):
    """`double_resolution` with bias: 4×4, stride 2, padding 1, with the conventions of PyTorch's `ConvTranspose2d`."""

    features: int
    dtype: str = "float32"
    result_dtype: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Map `[B, h, w, I]` to `[B, 2h, 2w, features]`."""
        return _convolve(self, double_resolution, x).astype(self.result_dtype or self.dtype)


def _convolve(module: Any, function: Callable[[jax.Array, jax.Array], jax.Array], x: jax.Array) -> jax.Array:
    """Convolve in the module's dtype and add the bias in float32."""
    kernel = module.param("kernel", xavier_uniform, (4, 4, x.shape[-1], module.features))
    bias = module.param("bias", nn.initializers.zeros, (module.features,), jnp.float32)
    return function(x.astype(module.dtype), kernel.astype(module.dtype)) + bias


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, with float32 statistics over all devices of `axis_name`.

    Unlike Flax's BatchNorm it stores the *unbiased* variance (n / (n − 1)), as PyTorch does. In training it normalises
    with the statistics of the batch and updates the collection `batch_stats`; in evaluation it uses the stored values.
    """

    axis_name: str | None = None
    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Normalise `[..., C]` and round the result to the dtype of `x`."""
        channels = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, channels, jnp.float32)
        bias = self.param("bias", nn.initializers.zeros, channels, jnp.float32)
        stored_mean = self.variable("batch_stats", "mean", jnp.zeros, channels, jnp.float32)
        stored_var = self.variable("batch_stats", "var", jnp.ones, channels, jnp.float32)
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
