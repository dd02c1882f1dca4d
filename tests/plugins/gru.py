"""A prior network from outside the package: a GRU over the positions in raster order.

--config.prior.name=tests.plugins.gru:GRU
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.priors.labels import check_labels, embedded_labels


class GRUMemory(struct.PyTreeNode):
    """What is carried from position to position."""

    carries: tuple[jax.Array, ...]  # per layer [B, width]
    latest: jax.Array  # [B, width], the embedded position just before; at the first one the class
    position: jax.Array  # [] int32


class GRU(nn.Module):
    """Features of every position from the positions before it; see `hvq_jax/priors/network.py`."""

    num_classes: int = 0
    width: int = 16
    num_layers: int = 1
    compute_dtype: str = "float32"

    def setup(self):
        self.cells = [nn.GRUCell(self.width) for _ in range(self.num_layers)]
        self.over_positions = [nn.RNN(cell) for cell in self.cells]
        if self.num_classes:
            self.class_embedding = nn.Embed(self.num_classes, self.width)

    def _start(self, batch, labels):
        check_labels(self, labels)
        return jnp.zeros((batch, self.width)) if labels is None else embedded_labels(self.class_embedding, labels)

    def __call__(self, embedded, labels=None, *, train=False):
        positions = embedded.reshape(len(embedded), -1, self.width)
        inputs = jnp.concatenate([self._start(len(embedded), labels)[:, None], positions[:, :-1]], axis=1)
        for layer in self.over_positions:
            inputs = layer(inputs)
        return inputs.reshape(embedded.shape)

    def blank_memory(self, batch, height, width):
        blank = jnp.zeros((batch, self.width))
        return GRUMemory((blank,) * self.num_layers, blank, jnp.zeros((), jnp.int32))

    def begin_row(self, memory, labels=None):
        start = self._start(len(memory.latest), labels)
        return memory.replace(latest=jnp.where(memory.position == 0, start, memory.latest))

    def next_features(self, memory, column):
        features, carries = memory.latest, []
        for cell, carry in zip(self.cells, memory.carries, strict=True):
            carry, features = cell(carry, features)
            carries.append(carry)
        return memory.replace(carries=tuple(carries), position=memory.position + 1), features

    def remember(self, memory, embedded, column):
        return memory.replace(latest=embedded)
