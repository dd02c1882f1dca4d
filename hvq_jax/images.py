"""The two forms of an image: uint8 on disk and on the way to the device, float32 in [-1, 1] in the networks."""

import jax
import jax.numpy as jnp


def to_float(images: jax.Array) -> jax.Array:
    """uint8 in [0, 255] to float32 in [-1, 1], any shape."""
    return images.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(images: jax.Array) -> jax.Array:
    """Float in [-1, 1] to uint8, rounded to nearest and clipped, any shape; the inverse of `to_float`."""
    return jnp.clip(jnp.round((images + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
