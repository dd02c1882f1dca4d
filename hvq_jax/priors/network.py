"""The interface of a prior's networks."""

from typing import Any, Protocol

import jax


class PriorNetwork(Protocol):
    """A Linen module: features of each position, in raster order, from the positions before it and a class label.

    A call computes all positions of a known grid in one pass. To draw a grid, `begin_row` (before the first column of
    each row), `next_features` and `remember` (once per position) compute the same features up to rounding, each once;
    call them through `apply(variables, ..., method="next_features")`. The memory is a pytree of fixed shapes, for
    `jax.lax.scan`. Labels that a conditional network lacks, or an unconditional one is given, raise ArgumentError.

    To use your own class, set `prior.name=package.module:Class`. It is constructed with those of the arguments
    num_classes, grid (h, w), width, num_layers, num_heads, dropout and compute_dtype that it has fields for.
    """

    num_classes: int  # 0: unconditional
    width: int  # of embedded positions and of features
    compute_dtype: str  # of the layers; features are float32

    def __call__(self, embedded: jax.Array, labels: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Return features `[B, h, w, width]` float32 of `embedded` positions of the same shape.

        Labels are `[B]` int32 from -1 (no class) to num_classes - 1. `train` turns dropout on, with rngs "dropout".
        """
        ...

    def blank_memory(self, batch: int, height: int, width: int) -> Any:
        """Return the memory before the first row of grids `[batch, height, width]`."""
        ...

    def begin_row(self, memory: Any, labels: jax.Array | None = None) -> Any:
        """Return the memory with the context that the next row needs from the rows above it."""
        ...

    def next_features(self, memory: Any, column: jax.Array) -> tuple[Any, jax.Array]:
        """Return the memory, and features `[batch, width]` float32 of the next position, which is in `column`."""
        ...

    def remember(self, memory: Any, embedded: jax.Array, column: jax.Array) -> Any:
        """Return the memory updated with that position, `embedded` `[batch, width]`."""
        ...
