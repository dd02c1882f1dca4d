"""What the networks of a prior have in common: `PixelCNN` and `Transformer` can take each other's place."""

from typing import Any, Protocol

import jax


class Network(Protocol):
    """Features of each position of a grid, in raster order, from the embedded positions before it and a class label.

    A call computes all positions of a known grid in one pass. To draw a grid, `begin_row` (before the first column of
    each row), `next_features` and `remember` (once a position) compute the same features to rounding, each once; call
    them through `apply(variables, ..., method="next_features")`. The memory is a pytree of fixed shapes, for
    `jax.lax.scan`. UserError where labels are missing from a conditional network or given to an unconditional one.
    """

    num_classes: int  # 0: unconditional
    width: int  # of embedded positions and of features
    compute_dtype: str  # of the layers; features are float32

    def __call__(self, embedded: jax.Array, labels: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Features `[B, h, w, width]` float32 from `embedded` of the same shape.

        Labels are `[B]` int32 from -1, no class, to num_classes - 1. `train` turns dropout on, with rngs "dropout".
        """
        ...

    def blank_memory(self, batch: int, height: int, width: int) -> Any:
        """The memory before the first row of grids `[batch, height, width]`."""
        ...

    def begin_row(self, memory: Any, labels: jax.Array | None = None) -> Any:
        """The memory with what the next row needs of the rows above it."""
        ...

    def next_features(self, memory: Any, column: jax.Array) -> tuple[Any, jax.Array]:
        """The memory, and features `[batch, width]` float32 of the next position, which is in this column."""
        ...

    def remember(self, memory: Any, embedded: jax.Array, column: jax.Array) -> Any:
        """The memory once `embedded` `[batch, width]` of that position is known."""
        ...
