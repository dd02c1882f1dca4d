"""A function of a batch, computed on one part of the batch after another in the memory of a part."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from hvq_jax.devices.loops import unrolls_loops


def in_parts(function: Callable[..., tuple[Any, Any]], num_parts: int, *arrays: Any) -> tuple[Any, Any]:
    """Return `function(*arrays)`, two pytrees: values of each item, and values of the whole batch.

    The batch is cut into equal parts along the leading axis of all arrays. Values of items are joined again; values of
    the batch, such as its statistics, become the means of the parts'. What the backward pass needs of a part is
    computed once more there instead of being kept, so that it is in memory for one part at a time (gradient
    accumulation). One part is the function itself.

    >>> in_parts(lambda x: (2 * x, x.mean()), 2, jnp.arange(4.0))
    (Array([0., 2., 4., 6.], dtype=float32), Array(1.5, dtype=float32))
    """
    if num_parts == 1:
        return function(*arrays)
    parts = jax.tree.map(lambda x: x.reshape(num_parts, -1, *x.shape[1:]), arrays)
    # In a loop, XLA cannot merge the second computation with the first; unrolled, it must be told not to.
    unroll = unrolls_loops()
    of_part = jax.checkpoint(function, prevent_cse=unroll)
    _, (of_items, of_batch) = jax.lax.scan(lambda _, part: (None, of_part(*part)), None, parts, unroll=unroll)
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), of_items)
    return joined, jax.tree.map(lambda x: jnp.mean(x, axis=0).astype(x.dtype), of_batch)
