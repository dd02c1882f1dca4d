"""Causal transformer: a network of an autoregressive prior over a grid of positions, in raster order.

Vaswani et al., "Attention Is All You Need" (arXiv:1706.03762), with layer normalisation before each branch (Xiong et
al., arXiv:2002.04745). It maps embedded positions to features; embedding tokens and predicting them is left to others.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import UserError
from hvq_jax.layers import Dense, xavier_uniform
from hvq_jax.priors.labels import check_labels, embedded_labels

# As large as embedded tokens: at 0.02 (GPT-2's) the places would long be drowned by them.
_embedding_init = nn.initializers.normal(stddev=1.0)


class Memory(struct.PyTreeNode):
    """What the layers still need of the positions before the next one."""

    latest: jax.Array  # [B, width] float32, the embedded position just before; not read at the first one
    condition: jax.Array  # [B, width] float32, of the class; zero where there is none
    # Per layer [B, heads, h·w, width / heads] of `compute_dtype`, zero from the next position on.
    keys: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]
    position: jax.Array  # [] int32, the next position's place in raster order


class Transformer(nn.Module):
    """Features of every position from the embedded positions before it and a class label; see `priors/network.py`."""

    grid: tuple[int, int]  # h, w
    num_classes: int = 0  # 0: unconditional
    width: int = 64
    num_layers: int = 6
    num_heads: int = 4
    dropout: float = 0.0  # of the embedded positions and of each branch, in training
    compute_dtype: str = "float32"  # of products; normalisation, the sum of branches and features are float32

    def setup(self) -> None:
        """Name the parameters; "layer" is singular because Flax appends the index."""
        if self.width % self.num_heads:
            raise UserError(
                f"Transformer has width {self.width} and {self.num_heads} heads: the width must be a multiple of them"
            )
        height, width = self.grid
        self.start = self.param("start", _embedding_init, (1, self.width))
        self.row_embedding = self.param("row_embedding", _embedding_init, (height, self.width))
        self.column_embedding = self.param("column_embedding", _embedding_init, (width, self.width))
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, self.width, embedding_init=_embedding_init)
        self.embedded_dropout = nn.Dropout(self.dropout)
        self.layer = [
            Layer(self.width, self.num_heads, self.num_layers, self.dropout, self.compute_dtype)
            for _ in range(self.num_layers)
        ]
        self.final_norm = _layer_norm()

    def __call__(self, embedded: jax.Array, labels: jax.Array | None = None, *, train: bool = False) -> jax.Array:
        """Compute the features of every position in one pass.

        Args:
            embedded: [B, h, w, width] float32.
            labels: [B] int32 in [0, num_classes), or -1 for no class; None where the model is unconditional.
            train: drop out, with the key `rngs={"dropout": key}` where `dropout` is positive.

        Returns:
            [B, h, w, width] float32; those of a position depend only on the embedded positions before it in raster
            order. A label outside its range makes them NaN.

        Raises:
            UserError: the grid is another; labels are missing from a conditional model or given to an unconditional
                one.
        """
        self._check_grid(*embedded.shape[1:3])
        check_labels(self, labels)
        before = embedded.reshape(len(embedded), -1, self.width)[:, :-1]
        start = jnp.broadcast_to(self.start[0], (len(embedded), 1, self.width))
        places = self.row_embedding[:, None] + self.column_embedding
        stream = jnp.concatenate([start, before], axis=1) + places.reshape(-1, self.width)
        if labels is not None:
            stream += embedded_labels(self.class_embedding, labels)[:, None]
        stream = self.embedded_dropout(stream, deterministic=not train)
        for layer in self.layer:
            stream = layer(stream, train=train)
        return self.final_norm(stream).reshape(embedded.shape)

    def blank_memory(self, batch: int, height: int, width: int) -> Memory:
        """What is remembered before the first position; UserError where the grid is another."""
        self._check_grid(height, width)
        nothing = jnp.zeros((batch, self.width))
        shape = (batch, self.num_heads, height * width, self.width // self.num_heads)
        cache = (jnp.zeros(shape, self.compute_dtype),) * self.num_layers
        return Memory(nothing, nothing, cache, cache, jnp.zeros((), jnp.int32))

    def begin_row(self, memory: Memory, labels: jax.Array | None = None) -> Memory:
        """Return the memory with which a row begins; labels and errors as in a call of the module."""
        check_labels(self, labels)
        return memory if labels is None else memory.replace(condition=embedded_labels(self.class_embedding, labels))

    def next_features(self, memory: Memory, column: jax.Array | int) -> tuple[Memory, jax.Array]:
        """Compute the features of the next position.

        Args:
            memory: that of `begin_row` in the first column, then that of `remember`.
            column: [] int32, of the next position.

        Returns:
            The memory to give `remember`; and [B, width] float32.
        """
        position = memory.position
        before = jnp.where(position == 0, self.start[0], memory.latest)
        place = jnp.asarray(self.row_embedding)[position // self.grid[1]] + jnp.asarray(self.column_embedding)[column]
        stream = before + place + memory.condition
        keys, values = [], []
        for layer, layer_keys, layer_values in zip(self.layer, memory.keys, memory.values, strict=True):
            stream, layer_keys, layer_values = layer.next_position(stream, layer_keys, layer_values, position)
            keys.append(layer_keys)
            values.append(layer_values)
        return memory.replace(keys=tuple(keys), values=tuple(values)), self.final_norm(stream)

    def remember(self, memory: Memory, embedded: jax.Array, column: jax.Array | int) -> Memory:
        """Return the memory once a position, [B, width] float32, is known; `memory` of its `next_features`."""
        del column  # for other networks
        return memory.replace(latest=embedded, position=memory.position + 1)

    def _check_grid(self, height: int, width: int) -> None:
        if (height, width) != self.grid:
            expected = "×".join(map(str, self.grid))
            raise UserError(f"Transformer was given a grid of {height}×{width}: its own is {expected}")


class Layer(nn.Module):
    """Causal self-attention and a perceptron of one hidden layer, each a branch added to its normalised input."""

    width: int
    num_heads: int
    num_layers: int  # of the model: the more, the smaller each branch begins
    dropout: float
    dtype: str

    def setup(self) -> None:
        """Name the parameters."""
        self.attention_norm = _layer_norm()
        self.query_key_value = Dense(3 * self.width, dtype=self.dtype)
        self.attention_output = self._branch_output()
        self.hidden_norm = _layer_norm()
        self.hidden = Dense(4 * self.width, dtype=self.dtype)
        self.hidden_output = self._branch_output()
        self.branch_dropout = nn.Dropout(self.dropout)

    def __call__(self, stream: jax.Array, *, train: bool) -> jax.Array:
        """Map the features of all positions, [B, n, width] float32, to the next layer's of that shape."""
        query, key, value = self._project(stream)
        mixed = jax.nn.dot_product_attention(query, key, value, is_causal=True)
        attended = self.attention_output(mixed.reshape(stream.shape))
        stream += self.branch_dropout(attended, deterministic=not train)
        return stream + self.branch_dropout(self._perceptron(stream), deterministic=not train)

    def next_position(
        self, stream: jax.Array, keys: jax.Array, values: jax.Array, position: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Map the features [B, width] of one position, the keys and values in the `Memory` too."""
        query, key, value = self._project(stream)
        keys = jax.lax.dynamic_update_slice_in_dim(keys, key[:, :, None], position, axis=2)
        values = jax.lax.dynamic_update_slice_in_dim(values, value[:, :, None], position, axis=2)
        stream += self.attention_output(_attend(query, keys, values, position).reshape(stream.shape))
        return stream + self._perceptron(stream), keys, values

    def _project(self, stream: jax.Array) -> list[jax.Array]:
        """Return query, key and value, each [..., heads, width / heads], of features [..., width]."""
        projected = self.query_key_value(self.attention_norm(stream))
        return [x.reshape(*x.shape[:-1], self.num_heads, -1) for x in jnp.split(projected, 3, axis=-1)]

    def _perceptron(self, stream: jax.Array) -> jax.Array:
        return self.hidden_output(nn.gelu(self.hidden(self.hidden_norm(stream))))

    def _branch_output(self) -> Dense:
        def init(key: jax.Array, shape: tuple[int, ...], dtype: str) -> jax.Array:
            # So that the sum of all branches begins as large whatever the depth (GPT-2's, Radford et al., 2019).
            return xavier_uniform(key, shape, dtype) / (2 * self.num_layers) ** 0.5

        return Dense(self.width, dtype=self.dtype, kernel_init=init, result_dtype="float32")


def _layer_norm() -> nn.LayerNorm:
    return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False)


def _attend(query: jax.Array, keys: jax.Array, values: jax.Array, position: jax.Array) -> jax.Array:
    """Attend from one position to itself and those before.

    `jax.nn.dot_product_attention` with a mask, but that takes the positions before the heads: three times slower inside
    a loop on CPU, where XLA transposes all keys and values at every step.

    Args:
        query: [B, heads, d].
        keys: [B, heads, n, d].
        values: likewise.
        position: [] int32.

    Returns:
        [B, heads, d], of the values' dtype.
    """
    scores = jnp.einsum("bhd,bhnd->bhn", query, keys, preferred_element_type=jnp.float32)
    seen = jnp.arange(keys.shape[2]) <= position
    weights = jax.nn.softmax(jnp.where(seen, scores / query.shape[-1] ** 0.5, -jnp.inf))
    return jnp.einsum("bhn,bhnd->bhd", weights.astype(values.dtype), values)
