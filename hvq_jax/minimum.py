"""The smallest number and its index, in the fastest form for each platform."""

import jax
import jax.numpy as jnp


def min_and_argmin(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the smallest numbers along the last axis of `x` `[..., K]`, `[...]`, and their indices `[...]` int32.

    Of equal numbers the first counts, as in `jnp.argmin`. If there is a NaN among the K, the smallest number may or may
    not be NaN, and the index is any from 0 to K − 1.

    >>> min_and_argmin(jnp.array([[3.0, 1.0, 1.0]]))
    (Array([1.], dtype=float32), Array([1], dtype=int32))
    """
    return jax.lax.platform_dependent(x, cpu=_in_two_passes, default=_in_one_pass)


def _in_one_pass(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.min(x, axis=-1), jnp.argmin(x, axis=-1).astype(jnp.int32)


def _in_two_passes(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Find the smallest, then the first that is not larger: XLA on CPU computes an argmin one number at a time."""
    smallest = jnp.min(x, axis=-1, keepdims=True)
    indices = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    first = jnp.min(jnp.where(x > smallest, x.shape[-1] - 1, indices), axis=-1)
    return smallest[..., 0], first
