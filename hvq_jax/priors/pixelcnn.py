"""Gated PixelCNN: an autoregressive prior over a grid of code indices, in raster order.

Van den Oord et al., "Conditional Image Generation with PixelCNN Decoders" (arXiv:1606.05328). Each
layer has a vertical stack, which sees the rows above a position, and a horizontal stack, which sees
the columns to its left and what the vertical stack saw; together they see every earlier position
and no later one.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from hvq_jax.errors import UserError
from hvq_jax.layers import Conv, Dense

_embedding_init = nn.initializers.normal(stddev=1.0)
_FIRST_REACH, _REACH = 3, 1  # of the first layer's kernels and of the others'


@struct.dataclass
class Memory:
    """What the layers still need of the rows above the next one (lead = B, w) or of the columns to its left (lead = B).

    Zero stands for what lies outside the grid. Both are of the model's `compute_dtype`.
    """

    latest: jax.Array  # [*lead, width], the embedded codes of the row or column just before
    inputs: tuple[jax.Array, ...]  # per layer [*lead, n, width], nearest last: n = 2 in the first layer, then 1


class PixelCNN(nn.Module):
    """Logits of the code at every position, given the codes before it and a class label.

    A call predicts every position of a known grid in one pass. To draw a grid, `begin_row` (once a row), `next_column`
    (once a position) and `remember` compute the same logits in raster order, each feature once.
    """

    num_codes: int
    num_classes: int = 0  # 0: unconditional
    width: int = 64
    num_layers: int = 15
    head_width: int = 512
    compute_dtype: str = "float32"  # of convolutions and dense layers; logits are float32, whatever it is

    def setup(self) -> None:
        """Name the parameters; "layer" is singular because Flax appends the index."""
        self.embedding = nn.Embed(self.num_codes, self.width, embedding_init=_embedding_init)
        self.layer = [
            GatedLayer(self.width, self.num_classes, self.compute_dtype, first=i == 0) for i in range(self.num_layers)
        ]
        self.head_hidden = Dense(self.head_width, dtype=self.compute_dtype)
        self.head_logits = Dense(self.num_codes, dtype=self.compute_dtype, result_dtype="float32")

    def __call__(self, indices: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Predict every position in one pass.

        Args:
            indices: [B, h, w] int32 in [0, num_codes); h and w are free.
            labels: [B] int32 in [0, num_classes), or None where the model is unconditional.

        Returns:
            [B, h, w, num_codes] float32 logits; those at a position depend only on the indices
            before it in raster order. An index or label past its range makes them NaN.

        Raises:
            UserError: labels are missing from a conditional model or given to an unconditional one.
        """
        self._check_labels(labels)
        vertical = horizontal = self._embed(indices)
        for layer in self.layer:
            vertical, horizontal = layer(vertical, horizontal, labels)
        return self._head(horizontal)

    def blank_memory(self, *lead: int) -> Memory:
        """Return what is remembered before the first row, lead = B, w, or the first column, lead = B."""
        lengths = [_FIRST_REACH - 1] + [_REACH] * (self.num_layers - 1)
        return Memory(
            latest=jnp.zeros((*lead, self.width), self.compute_dtype),
            inputs=tuple(jnp.zeros((*lead, length, self.width), self.compute_dtype) for length in lengths),
        )

    def remember(self, indices: jax.Array, inputs: tuple[jax.Array, ...]) -> Memory:
        """Return the memory once a row [B, w] or column [B] of int32 indices is known; `inputs` of the last step."""
        return Memory(self._embed(indices), inputs)

    def begin_row(
        self, rows: Memory, labels: jax.Array | None = None
    ) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        """Compute the vertical stack of the next row, which sees the rows above it only.

        Args:
            rows: the rows above, lead (B, w).
            labels: as in a call of the module.

        Returns:
            The inputs to `remember`; and per layer, [B, w, 2·width] of `compute_dtype`, the context that the horizontal
            stack takes from this row of the vertical one.

        Raises:
            UserError: as a call of the module.
        """
        self._check_labels(labels)
        features, inputs, contexts = rows.latest, [], []
        for layer, remembered in zip(self.layer, rows.inputs, strict=True):
            seen = jnp.concatenate([remembered, features[..., None, :]], axis=-2)
            inputs.append(seen[..., 1:, :])
            features, context = layer.next_vertical(seen, labels)
            contexts.append(context)
        return tuple(inputs), tuple(contexts)

    def next_column(self, columns: Memory, contexts: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, ...], jax.Array]:
        """Compute the horizontal stack and the logits of the next position in a row.

        Args:
            columns: the columns to the left, lead (B,).
            contexts: those of `begin_row` at this position, per layer [B, 2·width].

        Returns:
            The inputs to `remember`; and [B, num_codes] float32 logits.
        """
        features, inputs = columns.latest, []
        for layer, remembered, context in zip(self.layer, columns.inputs, contexts, strict=True):
            seen = jnp.concatenate([remembered, features[..., None, :]], axis=-2)
            inputs.append(seen[..., 1:, :])
            features = layer.next_horizontal(seen, context)
        return tuple(inputs), self._head(features)

    def _embed(self, indices: jax.Array) -> jax.Array:
        # Rounded afterwards: the gradient of a code is a sum over its positions.
        return self.embedding(indices).astype(self.compute_dtype)

    def _head(self, features: jax.Array) -> jax.Array:
        return self.head_logits(nn.relu(self.head_hidden(features)))

    def _check_labels(self, labels: jax.Array | None) -> None:
        if (labels is not None) != (self.num_classes > 0):
            given = "no labels" if labels is None else "labels"
            raise UserError(
                f"PixelCNN with num_classes={self.num_classes} was given {given}: pass labels "
                "exactly when num_classes is positive"
            )


class GatedLayer(nn.Module):
    """One layer of both stacks (arXiv:1606.05328, figure 2).

    The first layer reads the codes themselves, so it hides the current position (mask A) and has no
    residual. Later layers read features that already exclude it (mask B).
    """

    width: int
    num_classes: int
    dtype: str
    first: bool

    @property
    def reach(self) -> int:
        """How far the kernels see upwards, to the left and to the right."""
        return _FIRST_REACH if self.first else _REACH

    def setup(self) -> None:
        """Name the parameters."""
        reach = self.reach
        self.vertical = Conv(
            2 * self.width,
            kernel_size=(reach + 1, 2 * reach + 1),
            padding=((reach, 0), (reach, reach)),
            mask=self._mask((reach + 1, 2 * reach + 1), last=np.s_[-1]),
            dtype=self.dtype,
        )
        self.horizontal = Conv(
            2 * self.width,
            kernel_size=(1, reach + 1),
            padding=((0, 0), (reach, 0)),
            mask=self._mask((1, reach + 1), last=np.s_[:, -1]),
            dtype=self.dtype,
        )
        self.vertical_to_horizontal = Dense(2 * self.width, dtype=self.dtype)
        self.horizontal_output = Dense(self.width, dtype=self.dtype)
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, 2 * self.width, embedding_init=_embedding_init)

    def __call__(
        self, vertical: jax.Array, horizontal: jax.Array, labels: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Map the stacks' features, each [B, h, w, width], to the next layer's of that shape."""
        next_vertical, context = self._vertical_outputs(self.vertical(vertical), labels)
        return next_vertical, self._horizontal_output(self.horizontal(horizontal) + context, horizontal)

    def next_vertical(self, rows: jax.Array, labels: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Map the rows that the kernel sees, [B, w, n, width], to features [B, w, width] and context of one row."""
        length = rows.shape[1]
        padded = jnp.pad(rows, ((0, 0), (self.reach, self.reach), (0, 0), (0, 0)))
        windows = jnp.stack([padded[:, i : i + length] for i in range(2 * self.reach + 1)], axis=3)
        return self._vertical_outputs(_convolve_windows(self.vertical, windows), labels)

    def next_horizontal(self, columns: jax.Array, context: jax.Array) -> jax.Array:
        """Map the columns that the kernel sees, [B, n, width], to the features [B, width] of one position."""
        left = _convolve_windows(self.horizontal, columns[:, None])
        return self._horizontal_output(left + context, columns[:, -1])

    def _vertical_outputs(self, above: jax.Array, labels: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        """Return the vertical stack's next features and the context, what the horizontal stack takes from it."""
        context = self.vertical_to_horizontal(above)
        if labels is not None:
            condition = self.class_embedding(labels)
            condition = jnp.expand_dims(condition, range(1, above.ndim - 1))
            # In float32, as the gradient of a class is a sum over all positions.
            above, context = ((x + condition).astype(self.dtype) for x in (above, context))
        return _gate(above), context

    def _horizontal_output(self, left: jax.Array, horizontal: jax.Array) -> jax.Array:
        output = self.horizontal_output(_gate(left))
        return output if self.first else horizontal + output

    def _mask(self, kernel_size: tuple[int, int], last: tuple | int) -> np.ndarray | None:
        """Mask A: ones, and zeros in the kernel's last row or column. Mask B: nothing is hidden."""
        if not self.first:
            return None
        mask = np.ones((*kernel_size, self.width, 2 * self.width), np.float32)
        mask[last] = 0.0
        return mask


def _convolve_windows(conv: Conv, windows: jax.Array) -> jax.Array:
    """Evaluate a convolution at given positions as a matrix product: XLA's own is slow inside a loop on CPU.

    Args:
        conv: bound, with its parameters.
        windows: [..., rows, columns, in], what the kernel lies on, less the row or column that mask A hides.

    Returns:
        [..., out], of the convolution's dtype.
    """
    *positions, rows, columns, features = windows.shape
    params = conv.variables["params"]
    kernel = params["kernel"][:rows, :columns].reshape(rows * columns * features, -1).astype(conv.dtype)
    return (windows.reshape(*positions, -1) @ kernel + params["bias"]).astype(conv.dtype)


def _gate(features: jax.Array) -> jax.Array:
    """Return tanh(a)·sigmoid(b), a and b the two halves of the channels (ibid., equation 2)."""
    a, b = jnp.split(features, 2, axis=-1)
    return nn.tanh(a) * nn.sigmoid(b)


def negative_log_likelihood(logits: jax.Array, indices: jax.Array) -> jax.Array:
    """Return −log p of whole latents in nats, [B] float32.

    Args:
        logits: [B, h, w, K], float, each position's given the ones before it.
        indices: [B, h, w] int32.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    chosen = jnp.take_along_axis(log_probabilities, indices[..., None], axis=-1)
    return -chosen.sum(axis=(1, 2, 3))
