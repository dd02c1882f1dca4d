"""An encoder and a decoder from outside the package: 8×8 patches through dense layers, without batch normalisation.

--config.network.encoder=tests.plugins.patches:Encoder --config.network.decoder=tests.plugins.patches:Decoder
"""

import flax.linen as nn
import jax.numpy as jnp

from hvq_jax.networks.options import NetworkOptions

FACTOR = 8


class Encoder(nn.Module):
    """Images to z_e, a patch per position; see `hvq_jax/networks/__init__.py`."""

    dim: int
    options: NetworkOptions
    axis_name: str | None = None
    factor = FACTOR

    @nn.compact
    def __call__(self, images, *, train):
        batch, height, width, channels = images.shape
        h, w = height // FACTOR, width // FACTOR
        patches = images.reshape(batch, h, FACTOR, w, FACTOR, channels).swapaxes(2, 3).reshape(batch, h, w, -1)
        return nn.Dense(self.dim)(nn.gelu(nn.Dense(self.options.width)(patches)))


class Decoder(nn.Module):
    """Latents to images, a patch per position."""

    dim: int
    channels: int
    options: NetworkOptions
    axis_name: str | None = None
    factor = FACTOR

    @nn.compact
    def __call__(self, z_bar, *, train):
        batch, h, w, _ = z_bar.shape
        patches = nn.Dense(FACTOR**2 * self.channels)(nn.gelu(nn.Dense(self.options.width)(z_bar)))
        patches = patches.reshape(batch, h, w, FACTOR, FACTOR, self.channels).swapaxes(2, 3)
        return jnp.tanh(patches.reshape(batch, h * FACTOR, w * FACTOR, self.channels))
