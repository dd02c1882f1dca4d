"""Gated PixelCNN: a network in which each position of a grid sees only the positions before it in raster order.

Van den Oord et al., "Conditional Image Generation with PixelCNN Decoders" (arXiv:1606.05328). Each layer has a vertical
stack, which sees the rows above a position, and a horizontal stack, which sees the columns to its left and the features
of the vertical stack.

On CPU a pass over whole grids applies the vertical kernels with fewer multiplications (`networks/winograd.py`). What is
below a row in the same tile then cancels, but for rounding: a later position may change the last digits of an earlier
one, by a millionth. Sampling has no later positions.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hvq_jax.fusion import materialised_on_cpu
from hvq_jax.networks.layers import CheckedModule, Conv, Dense, convolve_as_flax_asks, embedding_init
from hvq_jax.priors.labels import check_labels, embedded_labels

_FIRST_REACH, _REACH = 3, 1  # of the kernels in the first layer and in the others


class PixelCNNMemory(struct.PyTreeNode):
    """The state that the layers keep of the rows above and the columns to the left; zero outside the grid.

    All arrays are in the network's `compute_dtype`.
    """

    row: jax.Array  # [B, w, width], the embedded positions of the current row that are known so far
    above: tuple[jax.Array, ...]  # per layer [B, w, n, width], nearest last: n = 2 in the first layer, then 1
    contexts: tuple[jax.Array, ...]  # per layer [w, B, 2·width], input of the horizontal stack from the vertical one
    latest: jax.Array  # [B, width], the embedded previous position
    left: tuple[jax.Array, ...]  # per layer [B, n, width], with n as in `above`


class PixelCNN(CheckedModule):
    """A network from earlier embedded positions and a class label to features; see `priors/network.py`."""

    num_classes: int = 0  # 0: unconditional
    width: int = 64
    num_layers: int = 15
    compute_dtype: str = "float32"  # of convolutions and dense layers; features are always float32

    def setup(self) -> None:
        """Define the parameters; "layer" is singular because Flax appends the index."""
        self.layer = [
            GatedLayer(self.width, self.num_classes, self.compute_dtype, first=i == 0) for i in range(self.num_layers)
        ]

    def __call__(self, embedded: jax.Array, labels: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Compute the features of all positions in one pass, `[B, h, w, width]` float32; h and w are arbitrary."""
        del train
        check_labels(self, labels)
        vertical = horizontal = embedded.astype(self.compute_dtype)
        for layer in self.layer:
            vertical, horizontal = layer(vertical, horizontal, labels)
        return horizontal.astype(jnp.float32)

    def blank_memory(self, batch: int, height: int, width: int) -> PixelCNNMemory:
        """Return the memory before the first row."""
        del height

        def zeros(*shape: int) -> jax.Array:
            return jnp.zeros(shape, self.compute_dtype)

        lengths = [_FIRST_REACH - 1] + [_REACH] * (self.num_layers - 1)
        return PixelCNNMemory(
            row=zeros(batch, width, self.width),
            above=tuple(zeros(batch, width, length, self.width) for length in lengths),
            contexts=tuple(zeros(width, batch, 2 * self.width) for _ in lengths),
            latest=zeros(batch, self.width),
            left=tuple(zeros(batch, length, self.width) for length in lengths),
        )

    def begin_row(self, memory: PixelCNNMemory, labels: jax.Array | None = None) -> PixelCNNMemory:
        """Evaluate the vertical stack for the next row, which depends only on the rows above, and return the memory."""
        check_labels(self, labels)
        features, above, contexts = memory.row, [], []
        for layer, remembered in zip(self.layer, memory.above, strict=True):
            seen = jnp.concatenate([remembered, features[..., None, :]], axis=-2)
            above.append(seen[..., 1:, :])
            features, context = layer.next_vertical(seen, labels)
            contexts.append(context.swapaxes(0, 1))
        return PixelCNNMemory(
            row=memory.row,
            above=tuple(above),
            contexts=tuple(contexts),
            latest=jnp.zeros_like(memory.latest),
            left=tuple(jnp.zeros_like(columns) for columns in memory.left),
        )

    def next_features(self, memory: PixelCNNMemory, column: jax.Array) -> tuple[PixelCNNMemory, jax.Array]:
        """Evaluate the horizontal stack at the next position of the row; return the memory and the features."""
        features, left = memory.latest, []
        for layer, remembered, contexts in zip(self.layer, memory.left, memory.contexts, strict=True):
            seen = jnp.concatenate([remembered, features[..., None, :]], axis=-2)
            left.append(seen[..., 1:, :])
            features = layer.next_horizontal(seen, contexts[column])
        return memory.replace(left=tuple(left)), features.astype(jnp.float32)

    def remember(self, memory: PixelCNNMemory, embedded: jax.Array, column: jax.Array) -> PixelCNNMemory:
        """Return the memory updated with the embedded position, `[B, width]`."""
        embedded = embedded.astype(self.compute_dtype)
        return memory.replace(latest=embedded, row=memory.row.at[:, column].set(embedded))


class GatedLayer(CheckedModule):
    """One layer of both stacks (arXiv:1606.05328, figure 2).

    The first layer reads the codes themselves, so it masks the current position (mask A) and has no residual
    connection. Later layers read features that already exclude it (mask B).
    """

    width: int
    num_classes: int
    dtype: str
    first: bool

    @property
    def reach(self) -> int:
        """The number of positions that the kernels extend up, to the left and to the right."""
        return _FIRST_REACH if self.first else _REACH

    def setup(self) -> None:
        """Define the parameters."""
        reach, masked = self.reach, int(self.first)  # mask A hides the kernels' last row or column
        self.vertical = Conv(
            2 * self.width,
            kernel_size=(reach + 1, 2 * reach + 1),
            padding=((reach, -masked), (reach, reach)),
            conv_general_dilated=partial(_convolve_seen, seen=np.s_[: reach + 1 - masked]),
            dtype=self.dtype,
        )
        self.horizontal = Conv(
            2 * self.width,
            kernel_size=(1, reach + 1),
            padding=((0, 0), (reach, -masked)),
            conv_general_dilated=partial(_convolve_seen, seen=np.s_[:, : reach + 1 - masked]),
            dtype=self.dtype,
        )
        self.vertical_to_horizontal = Dense(2 * self.width, dtype=self.dtype)
        self.horizontal_output = Dense(self.width, dtype=self.dtype)
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, 2 * self.width, embedding_init=embedding_init)

    def __call__(
        self, vertical: jax.Array, horizontal: jax.Array, labels: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Map the features of both stacks, each [B, h, w, width], to those of the next layer, of the same shape."""
        next_vertical, context = self._vertical_outputs(self.vertical(vertical), labels)
        return next_vertical, self._horizontal_output(self.horizontal(horizontal) + context, horizontal)

    def next_vertical(self, rows: jax.Array, labels: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Map the rows under the kernel, [B, w, n, width], to features [B, w, width] and context of one row."""
        length = rows.shape[1]
        padded = jnp.pad(rows, ((0, 0), (self.reach, self.reach), (0, 0), (0, 0)))
        windows = jnp.stack([padded[:, i : i + length] for i in range(2 * self.reach + 1)], axis=3)
        return self._vertical_outputs(_convolve_windows(self.vertical, windows), labels)

    def next_horizontal(self, columns: jax.Array, context: jax.Array) -> jax.Array:
        """Map the columns under the kernel, [B, n, width], to the features [B, width] of one position."""
        left = _convolve_windows(self.horizontal, columns[:, None])
        # XLA computes the gate one number at a time if it is fused with the context's selection from the row.
        return self._horizontal_output(materialised_on_cpu(left + context), columns[:, -1])

    def _vertical_outputs(self, above: jax.Array, labels: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Return the vertical stack's next features, and the context that it passes to the horizontal stack."""
        context = self.vertical_to_horizontal(above)
        if labels is not None:
            condition = embedded_labels(self.class_embedding, labels)
            condition = jnp.expand_dims(condition, range(1, above.ndim - 1))
            # In float32, because the gradient of a class embedding is a sum over all positions.
            above, context = ((x + condition).astype(self.dtype) for x in (above, context))
        return _gate(above), context

    def _horizontal_output(self, left: jax.Array, horizontal: jax.Array) -> jax.Array:
        output = self.horizontal_output(_gate(left))
        return output if self.first else horizontal + output


def _convolve_seen(x: jax.Array, kernel: jax.Array, *arguments: Any, seen: Any, **options: Any) -> jax.Array:
    """Convolve with the part of the kernel that mask A does not hide."""
    return convolve_as_flax_asks(x, kernel[seen], *arguments, **options)


def _convolve_windows(conv: Conv, windows: jax.Array) -> jax.Array:
    """Evaluate a convolution at given positions as a matrix product; XLA's convolutions are slow inside loops on CPU.

    Args:
        conv: a bound module with its parameters.
        windows: [..., rows, columns, in], the positions under the kernel, without the row or column that mask A hides.

    Returns:
        [..., out], in the convolution's dtype.
    """
    *positions, rows, columns, features = windows.shape
    params = conv.variables["params"]
    kernel = params["kernel"][:rows, :columns].reshape(rows * columns * features, -1).astype(conv.dtype)
    return (windows.reshape(*positions, -1) @ kernel + params["bias"]).astype(conv.dtype)


def _gate(features: jax.Array) -> jax.Array:
    """Return tanh(a)·sigmoid(b), where a and b are the two halves of the channels (ibid., equation 2)."""
    a, b = jnp.split(features, 2, axis=-1)
    return nn.tanh(a) * nn.sigmoid(b)
