"""A prior over hybrid latents: a network over earlier positions, a head for codes, one for their continuous parts.

    p(latent | y) = Π_i p(k_i | <i, y) · p(c_i | k_i, <i, y) where code k_i has a continuous part

A latent is given as what is transmitted: tokens `[B, h, w, 1 + c]` int32, the code in front and then the c whole
numbers of the continuous part (`heads.py`): c = 0 for plain codes. The network embeds these and nothing else, so
moving a number inside its bin or cell changes nothing.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import UserError
from hvq_jax.priors.heads import CodeHead


@struct.dataclass
class Nats:
    """Negative log-probabilities, float32; `[B, h, w]` of positions or `[B]` of whole latents."""

    codes: jax.Array
    continuous: jax.Array  # 0 where the code has no continuous part

    @property
    def total(self) -> jax.Array:
        """Of both."""
        return self.codes + self.continuous

    def of_latents(self) -> "Nats":
        """Summed over the positions."""
        return jax.tree.map(lambda nats: nats.sum(axis=(1, 2)), self)


class Prior(nn.Module):
    """Codes and continuous parts, given the positions before and a class label."""

    num_codes: int
    network: Any  # see `network.py`
    continuous: Any = None  # a head for the continuous part, None for plain codes
    head_width: int = 512

    def setup(self) -> None:
        """Name the parameters."""
        init = nn.initializers.normal(stddev=1.0)
        self.embedding = nn.Embed(self.num_codes, self.network.width, embedding_init=init)
        self.code_head = CodeHead(self.num_codes, self.head_width, self.network.compute_dtype)

    @property
    def num_classes(self) -> int:
        """0: unconditional."""
        return self.network.num_classes

    def __call__(
        self,
        tokens: jax.Array,
        labels: jax.Array | None = None,
        present: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> Nats:
        """Scores every position of known latents in one pass.

        Args:
            tokens: [B, h, w, 1 + c] int32.
            labels: [B] int32, -1 for no class; None where the network is unconditional.
            present: [K] bool, which codes have a continuous part; not needed for plain codes.
            train: whether dropout is on; it then needs rngs "dropout".

        Returns:
            Nats of every position, [B, h, w]. A code or label past its range makes them NaN.

        Raises:
            UserError: labels are missing from a conditional network or given to an unconditional one.
        """
        features = self.features(tokens, labels, present, train=train)
        return self.nats(features, tokens, present)

    def features(
        self, tokens: jax.Array, labels: jax.Array | None, present: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """[B, h, w, width] float32, those at a position depending on the ones before it only."""
        return self.network(self.embed(tokens, present), labels, train=train)

    def embed(self, tokens: jax.Array, present: jax.Array | None) -> jax.Array:
        """[..., width] float32 of tokens [..., 1 + c]."""
        codes = tokens[..., 0]
        embedded = self.embedding(codes)
        if not self._has_continuous(present):
            return embedded
        return embedded + jnp.where(jnp.asarray(present)[codes][..., None], self.continuous.embed(tokens[..., 1:]), 0.0)

    def _has_continuous(self, present: jax.Array | None) -> bool:
        if self.continuous is not None and present is None:
            raise UserError("a prior with a head for the continuous part needs `present`: which codes have one")
        return self.continuous is not None

    def code_logits(self, features: jax.Array) -> jax.Array:
        """[..., K] float32 of features [..., width]."""
        return self.code_head(features)

    def nats(self, features: jax.Array, tokens: jax.Array, present: jax.Array | None) -> Nats:
        """Of tokens [..., 1 + c], by features [..., width] of the same positions."""
        codes = tokens[..., 0]
        log_probabilities = jax.nn.log_softmax(self.code_logits(features))
        nats = -jnp.take_along_axis(log_probabilities, codes[..., None], axis=-1)[..., 0]
        if not self._has_continuous(present):
            return Nats(nats, jnp.zeros_like(nats))
        continuous = -self.continuous.log_probability(features, codes, tokens[..., 1:])
        return Nats(nats, jnp.where(jnp.asarray(present)[codes], continuous, 0.0))

    def density(self, tokens: jax.Array, labels: jax.Array | None, present: jax.Array) -> jax.Array:
        """Scores residuals by density, -log p per unit of volume, in place of the probability of their cells.

        Arguments as in a call of the module, whose head has to be a `ResidualHead`. [B, h, w] float32 nats, 0 where
        there is no residual. It has no sum with the nats of codes.
        """
        features, codes = self.features(tokens, labels, present), tokens[..., 0]
        residuals = self.continuous.step * tokens[..., 1:]
        density = -self.continuous.log_density(features, codes, residuals)
        return jnp.where(jnp.asarray(present)[codes], density, 0.0)

    def draw_continuous(
        self, features: jax.Array, codes: jax.Array, present: jax.Array | None, keys: jax.Array, temperature: float
    ) -> jax.Array:
        """[B, 1 + c] tokens of codes [B], their continuous part drawn by features [B, width], 0 where there is none."""
        if not self._has_continuous(present):
            return codes[:, None]
        drawn = self.continuous.draw(features, codes, keys, temperature=temperature)
        return jnp.concatenate([codes[:, None], jnp.where(jnp.asarray(present)[codes][:, None], drawn, 0)], axis=-1)

    def begin_row(self, memory: Any, labels: jax.Array | None) -> Any:
        """See `network.py`."""
        return self.network.begin_row(memory, labels)

    def next_features(self, memory: Any, column: jax.Array) -> tuple[Any, jax.Array]:
        """See `network.py`."""
        return self.network.next_features(memory, column)

    def remember(self, memory: Any, tokens: jax.Array, present: jax.Array | None, column: jax.Array) -> Any:
        """The memory once tokens `[B, 1 + c]` of that position are known."""
        return self.network.remember(memory, self.embed(tokens, present), column)
