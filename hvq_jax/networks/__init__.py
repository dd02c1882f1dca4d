"""Encoders and decoders, by their names in `network.encoder` and `network.decoder`."""

from typing import Any, Protocol

import jax

from hvq_jax import registry
from hvq_jax.errors import ArgumentError
from hvq_jax.networks.encoder_decoder import Decoder, Encoder
from hvq_jax.networks.options import DECODERS, ENCODERS, NetworkOptions


class EncoderNetwork(Protocol):
    """A Linen module, constructed as `Class(dim, options, axis_name)`, that maps images to z_e.

    Its parameters are trained, and its collection `batch_stats`, if it has one, is kept with them.
    """

    dim: int  # D, channels of z_e
    options: NetworkOptions
    axis_name: str | None

    @property
    def factor(self) -> int:
        """Image side per latent side; must divide the sides of the images."""

    def __call__(self, images: jax.Array, *, train: bool) -> jax.Array:
        """Map images `[B, H, W, C]` in [-1, 1] to z_e `[B, H/factor, W/factor, D]`.

        With `train` it may use the statistics of the batch, and reduce over the devices of `axis_name`.
        """


class DecoderNetwork(Protocol):
    """A Linen module, constructed as `Class(dim, channels, options, axis_name)`, that maps latents to images."""

    dim: int  # D, channels of the latent
    channels: int  # C, channels of the images
    options: NetworkOptions
    axis_name: str | None

    @property
    def factor(self) -> int:
        """Image side per latent side; must equal the encoder's."""

    def __call__(self, z_bar: jax.Array, *, train: bool) -> jax.Array:
        """Map latents `[B, h, w, D]` to images `[B, factor h, factor w, C]` in [-1, 1]."""


ENCODERS.update(reference=Encoder)
DECODERS.update(reference=Decoder)


def make_encoder(options: NetworkOptions, dim: int, axis_name: str | None = None) -> Any:
    """Return the encoder named in `options`, for z_e with `dim` channels."""
    encoder = registry.find("network.encoder", options.encoder, ENCODERS, EncoderNetwork)
    return _construct("network.encoder", options.encoder, encoder, dim, options, axis_name)


def make_decoder(options: NetworkOptions, dim: int, channels: int, axis_name: str | None = None) -> Any:
    """Return the decoder named in `options`, for latents with `dim` channels and images with `channels`."""
    decoder = registry.find("network.decoder", options.decoder, DECODERS, DecoderNetwork)
    return _construct("network.decoder", options.decoder, decoder, dim, channels, options, axis_name)


def _construct(argument: str, name: str, network: Any, *arguments: Any) -> Any:
    with registry.constructing(argument, name):
        made = network(*arguments)
        if not isinstance(made.factor, int) or made.factor < 1:
            raise ArgumentError(f"{argument}={name}", f"its factor must be a positive integer, not {made.factor!r}")
    return made
