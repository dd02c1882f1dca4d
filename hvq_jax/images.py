"""Conversion of images between uint8, used on disk and for transfer, and float32 in [-1, 1], used in the networks."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """Convert uint8 in [0, 255] to float32 in [-1, 1], in any shape."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def as_float(images: jax.Array) -> jax.Array:
    """Return float32 images in [-1, 1], in any shape, of uint8 images or of float images that are so already."""
    return to_float(images) if images.dtype == jnp.uint8 else images.astype(jnp.float32)


def to_uint8(images: jax.Array) -> jax.Array:
    """Convert float in [-1, 1] to uint8, rounding to nearest and clipping, in any shape; the inverse of `to_float`."""
    return jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
