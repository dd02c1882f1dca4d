"""Encoder and decoder of the reference (`ritheshkumar95/pytorch-vqvae`) in Linen, NHWC.

Two strided convolutions divide the sides by 4; hidden width and latent width are the same D; there is no 1×1
convolution before the codebook. The reference has two residual blocks on either side.

`compute_dtype` is that of the convolutions and of what is kept for the backward pass. Parameters and statistics are
float32, and so are z_e and the images, whatever it is; but in bfloat16 z_e, the sum of a residual block, has only the
eight binary digits of that.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.layers import BatchNorm, Conv4x4, ConvTranspose4x4, conv

SKIPS = ("rectified", "identity")


class ResidualBlock(nn.Module):
    """x + f(relu(x)), f = Conv3×3 → BN → ReLU → Conv1×1 → BN; `[B, h, w, D]` to the same.

    `skip="rectified"` is the reference's: its first ReLU works in place, so the block is relu(x) + f(relu(x)).
    """

    features: int
    skip: str = "identity"
    axis_name: str | None = None
    compute_dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[B, h, w, D]` to `[B, h, w, D]`."""
        rectified = nn.relu(x)
        y = conv(self.features, 3, self.compute_dtype, name="conv_3x3")(rectified)
        y = nn.relu(BatchNorm(self.axis_name, name="norm_3x3")(y, train=train))
        y = conv(self.features, 1, self.compute_dtype, name="conv_1x1")(y)
        y = BatchNorm(self.axis_name, name="norm_1x1")(y, train=train)
        return (rectified if self.skip == "rectified" else x) + y


class Encoder(nn.Module):
    """Images `[B, H, W, C]` in [-1, 1] to z_e `[B, H/4, W/4, D]` float32."""

    features: int
    skip: str = "identity"
    axis_name: str | None = None
    compute_dtype: str = "float32"
    num_blocks: int = 2

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """`[B, H, W, C]` to `[B, H/4, W/4, D]`."""
        x = Conv4x4(self.features, self.compute_dtype, name="conv_in")(images)
        x = nn.relu(BatchNorm(self.axis_name, name="norm_in")(x, train=train))
        x = Conv4x4(self.features, self.compute_dtype, name="conv_down")(x)
        for i in range(self.num_blocks):
            block = ResidualBlock(self.features, self.skip, self.axis_name, self.compute_dtype, name=f"block_{i}")
            x = block(x, train=train)
        return x.astype(jnp.float32)


class Decoder(nn.Module):
    """Latents `[B, h, w, D]` to images `[B, 4h, 4w, C]` float32 in [-1, 1]."""

    features: int
    channels: int
    skip: str = "identity"
    axis_name: str | None = None
    compute_dtype: str = "float32"
    num_blocks: int = 2

    @nn.compact
    def __call__(self, z_bar: jax.Array, *, train: bool) -> jax.Array:
        """`[B, h, w, D]` to `[B, 4h, 4w, C]`."""
        x = z_bar.astype(self.compute_dtype)
        for i in range(self.num_blocks):
            block = ResidualBlock(self.features, self.skip, self.axis_name, self.compute_dtype, name=f"block_{i}")
            x = block(x, train=train)
        x = ConvTranspose4x4(self.features, self.compute_dtype, name="conv_up")(nn.relu(x))
        x = nn.relu(BatchNorm(self.axis_name, name="norm_up")(x, train=train))
        x = ConvTranspose4x4(self.channels, self.compute_dtype, result_dtype="float32", name="conv_out")(x)
        return nn.tanh(x)
