"""Encoder and decoder of the reference (`ritheshkumar95/pytorch-vqvae`) in Linen, NHWC.

Each strided convolution halves the sides: two of them, and two residual blocks on either side, in the reference. There
hidden layers and latent have the same width and nothing stands before the codebook; where the widths differ, a 1×1
convolution joins them.

`compute_dtype` is the dtype of the convolutions and of what is kept for the backward pass. Parameters, statistics, z_e
and images are float32 in any case; but in bfloat16 z_e, the sum of a residual block, has only eight binary digits.
"""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.networks.layers import BatchNorm, CheckedModule, Conv4x4, ConvTranspose4x4, conv
from hvq_jax.networks.options import NetworkOptions


class ResidualBlock(CheckedModule):
    """x + f(relu(x)), f = Conv3×3 → BN → ReLU → Conv1×1 → BN; `[B, h, w, features]` to the same.

    `skip="rectified"` is the reference's: its first ReLU works in place, so the block is relu(x) + f(relu(x)).
    """

    features: int
    skip: str = "identity"
    axis_name: str | None = None
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Map `[B, h, w, features]` to the same shape."""
        rectified = nn.relu(x)
        y = conv(self.features, 3, self.compute_dtype, name="conv_3x3")(rectified)
        y = nn.relu(BatchNorm(self.axis_name, name="norm_3x3")(y, train=train))
        y = conv(self.features, 1, self.compute_dtype, name="conv_1x1")(y)
        y = BatchNorm(self.axis_name, name="norm_1x1")(y, train=train)
        return (rectified if self.skip == "rectified" else x) + y


def _residual_blocks(network: "Encoder | Decoder", width: int, x: jax.Array, train: bool) -> jax.Array:
    options = network.options
    for i in range(options.num_blocks):
        block = ResidualBlock(width, options.skip, network.axis_name, options.compute_dtype, name=f"block_{i}")
        x = block(x, train=train)
    return x


def _inner_stages(factor: int) -> list[str]:
    """Return a suffix for each halving but the outermost: "", "_2", "_3", from the image inwards in the encoder."""
    return ["", "_2", "_3"][: int(math.log2(factor)) - 1]


class Encoder(nn.Module):
    """Images `[B, H, W, C]` in [-1, 1] to z_e `[B, H/factor, W/factor, dim]` float32."""

    dim: int
    options: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    axis_name: str | None = None

    @property
    def factor(self) -> int:
        """Image side per latent side."""
        return self.options.factor

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Map images to z_e."""
        width, dtype = self.options.width or self.dim, self.options.compute_dtype
        x = Conv4x4(width, dtype, name="conv_in")(images)
        norm = "norm_in"
        for suffix in _inner_stages(self.factor):
            x = nn.relu(BatchNorm(self.axis_name, name=norm)(x, train=train))
            x = Conv4x4(width, dtype, name=f"conv_down{suffix}")(x)
            norm = f"norm_down{suffix}"
        x = _residual_blocks(self, width, x, train)
        if width != self.dim:
            x = conv(self.dim, 1, dtype, name="conv_to_latent")(x)
        return x.astype(jnp.float32)


class Decoder(nn.Module):
    """Latents `[B, h, w, dim]` to images `[B, factor h, factor w, channels]` float32 in [-1, 1]."""

    dim: int
    channels: int
    options: NetworkOptions = dataclasses.field(default_factory=NetworkOptions)
    axis_name: str | None = None

    @property
    def factor(self) -> int:
        """Image side per latent side."""
        return self.options.factor

    @nn.compact
    def __call__(self, z_bar: jax.Array, *, train: bool) -> jax.Array:
        """Map latents to images."""
        width, dtype = self.options.width or self.dim, self.options.compute_dtype
        x = z_bar.astype(dtype)
        if width != self.dim:
            x = conv(width, 1, dtype, name="conv_from_latent")(x)
        x = nn.relu(_residual_blocks(self, width, x, train))
        for suffix in _inner_stages(self.factor):
            x = ConvTranspose4x4(width, dtype, name=f"conv_up{suffix}")(x)
            x = nn.relu(BatchNorm(self.axis_name, name=f"norm_up{suffix}")(x, train=train))
        x = ConvTranspose4x4(self.channels, dtype, result_dtype="float32", name="conv_out")(x)
        return nn.tanh(x)
