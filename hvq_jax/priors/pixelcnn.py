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

from hvq_jax.errors import UserError
from hvq_jax.layers import xavier_uniform

_embedding_init = nn.initializers.normal(stddev=1.0)


class PixelCNN(nn.Module):
    """Logits of the code at every position, given the codes before it and a class label."""

    num_codes: int
    num_classes: int = 0  # 0: unconditional
    width: int = 64
    num_layers: int = 15
    head_width: int = 512

    @nn.compact
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
        if (labels is not None) != (self.num_classes > 0):
            given = "no labels" if labels is None else "labels"
            raise UserError(
                f"PixelCNN with num_classes={self.num_classes} was given {given}: pass labels "
                "exactly when num_classes is positive"
            )
        vertical = horizontal = nn.Embed(self.num_codes, self.width, embedding_init=_embedding_init, name="embedding")(
            indices
        )
        for i in range(self.num_layers):
            layer = GatedLayer(self.width, self.num_classes, first=i == 0, name=f"layer_{i}")
            vertical, horizontal = layer(vertical, horizontal, labels)
        hidden = nn.relu(nn.Dense(self.head_width, kernel_init=xavier_uniform, name="head_hidden")(horizontal))
        return nn.Dense(self.num_codes, kernel_init=xavier_uniform, name="head_logits")(hidden)


class GatedLayer(nn.Module):
    """One layer of both stacks (arXiv:1606.05328, figure 2).

    The first layer reads the codes themselves, so it hides the current position (mask A) and has no
    residual. Later layers read features that already exclude it (mask B).
    """

    width: int
    num_classes: int
    first: bool

    @nn.compact
    def __call__(
        self, vertical: jax.Array, horizontal: jax.Array, labels: jax.Array | None
    ) -> tuple[jax.Array, jax.Array]:
        """Map the stacks' features, each [B, h, w, width], to the next layer's of that shape."""
        reach = 3 if self.first else 1
        above = nn.Conv(
            2 * self.width,
            kernel_size=(reach + 1, 2 * reach + 1),
            padding=((reach, 0), (reach, reach)),
            mask=self._mask((reach + 1, 2 * reach + 1), last=np.s_[-1]),
            kernel_init=xavier_uniform,
            name="vertical",
        )(vertical)
        left = nn.Conv(
            2 * self.width,
            kernel_size=(1, reach + 1),
            padding=((0, 0), (reach, 0)),
            mask=self._mask((1, reach + 1), last=np.s_[:, -1]),
            kernel_init=xavier_uniform,
            name="horizontal",
        )(horizontal)
        left += nn.Dense(2 * self.width, kernel_init=xavier_uniform, name="vertical_to_horizontal")(above)
        if labels is not None:
            embed_class = nn.Embed(
                self.num_classes,
                2 * self.width,
                embedding_init=_embedding_init,
                name="class_embedding",
            )
            condition = embed_class(labels)[:, None, None, :]
            above, left = above + condition, left + condition

        output = nn.Dense(self.width, kernel_init=xavier_uniform, name="horizontal_output")(_gate(left))
        return _gate(above), output if self.first else horizontal + output

    def _mask(self, kernel_size: tuple[int, int], last: tuple | int) -> np.ndarray | None:
        """Mask A: ones, and zeros in the kernel's last row or column. Mask B: nothing is hidden."""
        if not self.first:
            return None
        mask = np.ones((*kernel_size, self.width, 2 * self.width), np.float32)
        mask[last] = 0.0
        return mask


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
