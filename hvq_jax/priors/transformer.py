"""Causal transformer: a network for an autoregressive prior over a grid of positions, in raster order.

Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762), with layer normalisation before each branch (Xiong et
al., arXiv:2002.04745). It maps embedded positions to features; `Prior` embeds the tokens and predicts them.

The class is a token in front of the grid. It also scales and shifts the input of each branch, as in DiT (Peebles and
Xie, arXiv:2212.09748): with a token alone, attention has to find the class again at every position.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import ArgumentError
from hvq_jax.fusion import materialised_on_cpu
from hvq_jax.networks.layers import CheckedModule, Dense, embedding_init, xavier_uniform
from hvq_jax.priors.labels import check_labels, embedded_labels

# The same scale as embedded tokens: at 0.02 (as in GPT-2) they would drown out the position for a long time.


class TransformerMemory(struct.PyTreeNode):
    """The state that the layers keep of earlier positions in order to compute the next one."""

    latest: jax.Array  # [B, width] float32, the embedded previous position; the class token at the first position
    conditions: tuple[jax.Array, ...]  # per layer [B, 4·width] float32, from the class; empty if unconditional
    # Per layer [B, heads, h·w, width / heads] in `compute_dtype`, zero from the next position on.
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    position: jax.Array  # [] int32, index of the next position in raster order


class Transformer(CheckedModule):
    """A network from earlier embedded positions and a class label to features; see `priors/network.py`."""

    grid: tuple[int, int]  # h, w
    num_classes: int = 0  # 0: unconditional
    # On CPU a transformer samples the faster the wider and shallower it is (docs/performance.md).
    width: int = 192
    num_layers: int = 3
    num_heads: int = 4
    dropout: float = 0.0  # rate on the embedded positions and on each branch, in training
    compute_dtype: str = "float32"  # of products; normalisation, the residual stream and features are float32

    def setup(self) -> None:
        """Define the parameters; "layer" is singular because Flax appends the index."""
        if self.width % self.num_heads:
            raise ArgumentError(f"num_heads={self.num_heads}", f"must divide width={self.width}")
        height, width = self.grid
        self.start = self.param("start", embedding_init, (1, self.width), jnp.float32)
        self.row_embedding = self.param("row_embedding", embedding_init, (height, self.width), jnp.float32)
        self.column_embedding = self.param("column_embedding", embedding_init, (width, self.width), jnp.float32)
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, self.width, embedding_init=embedding_init)
        self.embedded_dropout = nn.Dropout(self.dropout)
        self.layer = [
            Layer(self.width, self.num_heads, self.num_layers, self.num_classes, self.dropout, self.compute_dtype)
            for _ in range(self.num_layers)
        ]
        self.final_norm = _layer_norm()

    def __call__(self, embedded: jax.Array, labels: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Compute the features of all positions in one pass.

        Args:
            embedded: [B, h, w, width] float32.
            labels: [B] int32 in [0, num_classes), or -1 for no class; None if the model is unconditional.
            train: apply dropout, with `rngs={"dropout": key}` if `dropout` is positive.

        Returns:
            [B, h, w, width] float32. The features of a position depend only on the embedded positions before it in
            raster order. A label out of range makes them NaN.

        Raises:
            ArgumentError: the grid has another size, or labels are missing from a conditional model or given to an
                unconditional one.
        """
        self._check_grid(*embedded.shape[1:3])
        check_labels(self, labels)
        before = embedded.reshape(len(embedded), -1, self.width)[:, :-1]
        token = self._class_token(len(embedded), labels)
        places = self.row_embedding[:, None] + self.column_embedding
        stream = jnp.concatenate([token[:, None], before], axis=1) + places.reshape(-1, self.width)
        stream = self.embedded_dropout(stream, deterministic=not train)
        for layer in self.layer:
            stream = layer(stream, layer.condition(labels), train=train)
        return self.final_norm(stream).reshape(embedded.shape)

    def blank_memory(self, batch: int, height: int, width: int) -> TransformerMemory:
        """Return the memory before the first position; raise ArgumentError if the grid has another size."""
        self._check_grid(height, width)
        shape = (batch, self.num_heads, height * width, self.width // self.num_heads)
        cache = (jnp.zeros(shape, self.compute_dtype),) * self.num_layers
        conditions = (jnp.zeros((batch, 4 * self.width), jnp.float32),) * (self.num_layers if self.num_classes else 0)
        return TransformerMemory(
            jnp.zeros((batch, self.width), jnp.float32), conditions, cache, cache, jnp.zeros((), jnp.int32)
        )

    def begin_row(self, memory: TransformerMemory, labels: jax.Array | None = None) -> TransformerMemory:
        """Return the memory at the beginning of a row; labels and errors as in `__call__`."""
        check_labels(self, labels)
        token = self._class_token(memory.latest.shape[0], labels)
        conditions = () if labels is None else tuple(layer.condition(labels) for layer in self.layer)
        return memory.replace(latest=jnp.where(memory.position == 0, token, memory.latest), conditions=conditions)

    def next_features(self, memory: TransformerMemory, column: jax.Array | int) -> tuple[TransformerMemory, jax.Array]:
        """Compute the features of the next position.

        Args:
            memory: from `begin_row` in the first column, then from `remember`.
            column: [] int32, of the next position.

        Returns:
            The memory to pass to `remember`, and the features [B, width] float32.
        """
        position = memory.position
        place = jnp.asarray(self.row_embedding)[position // self.grid[1]] + jnp.asarray(self.column_embedding)[column]
        stream = memory.latest + place
        keys, values = [], []
        conditions = memory.conditions or (None,) * self.num_layers
        for layer, condition, layer_keys, layer_values in zip(
            self.layer, conditions, memory.keys, memory.values, strict=True
        ):
            stream, layer_keys, layer_values = layer.next_position(
                stream, condition, layer_keys, layer_values, position
            )
            keys.append(layer_keys)
            values.append(layer_values)
        return memory.replace(keys=tuple(keys), values=tuple(values)), self.final_norm(stream)

    def remember(self, memory: TransformerMemory, embedded: jax.Array, column: jax.Array | int) -> TransformerMemory:
        """Return the memory updated with a position, [B, width] float32; `memory` comes from `next_features`."""
        del column  # only other networks use it
        return memory.replace(latest=embedded, position=memory.position + 1)

    def _class_token(self, batch: int, labels: jax.Array | None) -> jax.Array:
        """Return the token in front of each grid, [B, width] float32."""
        if labels is None:
            return jnp.broadcast_to(self.start[0], (batch, self.width))
        return self.start[0] + embedded_labels(self.class_embedding, labels)

    def _check_grid(self, height: int, width: int) -> None:
        if (height, width) != self.grid:
            raise ArgumentError(f"grid={self.grid}", f"this Transformer was given a grid of {height}×{width}")


class Layer(CheckedModule):
    """Causal self-attention and a perceptron with one hidden layer, each a residual branch with normalised input."""

    width: int
    num_heads: int
    num_layers: int  # of the model; initial branch outputs are scaled down with it
    num_classes: int
    dropout: float
    dtype: str

    def setup(self) -> None:
        """Define the parameters."""
        self.attention_norm = _layer_norm()
        self.query_key_value = Dense(3 * self.width, dtype=self.dtype)
        self.attention_output = self._branch_output()
        self.hidden_norm = _layer_norm()
        self.hidden = Dense(4 * self.width, dtype=self.dtype)
        self.hidden_output = self._branch_output()
        self.branch_dropout = nn.Dropout(self.dropout)
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, 4 * self.width, embedding_init=nn.initializers.zeros)

    def condition(self, labels: jax.Array | None) -> jax.Array | None:
        """Return scale and shift of both branches' inputs, [B, 4·width] float32; None if there are no labels."""
        return None if labels is None else embedded_labels(self.class_embedding, labels)

    def __call__(self, stream: jax.Array, condition: jax.Array | None, *, train: bool) -> jax.Array:
        """Map the features of all positions, [B, n, width] float32, to those of the next layer, of the same shape."""
        of_attention, of_perceptron = _halves(condition if condition is None else condition[:, None])
        query, key, value = self._project(stream, of_attention)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        attended = self.attention_output(mixed.reshape(stream.shape))
        stream += self.branch_dropout(attended, deterministic=not train)
        return stream + self.branch_dropout(self._perceptron(stream, of_perceptron), deterministic=not train)

    def next_position(
        self,
        stream: jax.Array,
        condition: jax.Array | None,
        keys: jax.Array,
        values: jax.Array,
        position: jax.Array,
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map the features [B, width] of one position to the next layer's; also update its keys and values."""
        of_attention, of_perceptron = _halves(condition)
        query, key, value = self._project(stream, of_attention)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key[:, :, None], position, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(values, value[:, :, None], position, axis=2)
        stream += self.attention_output(_attend(query, keys, values, position).reshape(stream.shape))
        return stream + self._perceptron(stream, of_perceptron), keys, values

    def _project(self, stream: jax.Array, condition: jax.Array | None) -> list[jax.Array]:
        """Return query, key and value, each [..., heads, width / heads], for features [..., width]."""
        projected = self.query_key_value(_modulated(self.attention_norm(stream), condition))
        return [x.reshape(*x.shape[:-1], self.num_heads, -1) for x in jnp.split(projected, 3, axis=-1)]

    def _perceptron(self, stream: jax.Array, condition: jax.Array | None) -> jax.Array:
        hidden = nn.gelu(self.hidden(_modulated(self.hidden_norm(stream), condition)))
        if stream.ndim == 2:  # one position: a kernel for both products takes three times as long with so few rows
            hidden = materialised_on_cpu(hidden)
        return self.hidden_output(hidden)

    def _branch_output(self) -> Dense:
        def init(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
            # Keeps the initial size of the sum of all branches independent of depth (GPT-2, Radford et al., 2019).
            return xavier_uniform(key, shape, dtype) / (2 * self.num_layers) ** 0.5

        return Dense(self.width, dtype=self.dtype, kernel_init=init, result_dtype="float32")


def _layer_norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)


def _halves(condition: jax.Array | None) -> list[Any]:
    """Split a layer's condition into the attention's part and the perceptron's."""
    return [None, None] if condition is None else jnp.split(condition, 2, axis=-1)


def _modulated(features: jax.Array, condition: jax.Array | None) -> jax.Array:
    """Scale and shift features [..., width] by a condition [..., 2·width]; zero leaves them unchanged."""
    if condition is None:
        return features
    scale, shift = jnp.split(condition, 2, axis=-1)
    return features * (1 + scale) + shift


def _attend(query: jax.Array, keys: jax.Array, values: jax.Array, position: jax.Array) -> jax.Array:
    """Attend from one position to itself and to those before.

    Equivalent to `jax.nn.dot_product_attention` with a mask. That function expects positions before heads, which is
    three times slower inside a loop on CPU, because XLA transposes all keys and values at every step.

    Args:
        query: [B, heads, d].
        keys: [B, heads, n, d].
        values: [B, heads, n, d].
        position: [] int32.

    Returns:
        [B, heads, d], in the dtype of the values.
    """
    scores = jnp.einsum("bhd,bhnd->bhn", query, keys, preferred_element_type=jnp.float32)
    seen = jnp.arange(keys.shape[2], dtype=jnp.int32) <= position
    weights = jax.nn.softmax(jnp.where(seen, scores / query.shape[-1] ** 0.5, -jnp.inf))
    return jnp.einsum("bhn,bhnd->bhd", weights.astype(values.dtype), values)
