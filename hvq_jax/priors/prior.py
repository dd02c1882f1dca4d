"""A prior over hybrid latents: a network over earlier positions, heads for codes, and heads for continuous parts.

    p(latent | y) = Π_i p(k_i | <i, y) · p(c_i | k_i, <i, y) where code k_i has a continuous part

or, where a position has L codes, as in residual quantization,

    p(latent | y) = Π_i Π_l p(k_il | k_i1 … k_i,l−1, <i, y)

The network runs once per position; head l sees its features and the embeddings of the position's earlier codes. This is
the factorisation of the RQ-Transformer (Lee et al., 2022, arXiv:2203.01941) with a perceptron per code in place of its
depth transformer.

A latent is given as what is transmitted: tokens `[B, h, w, L + c]` int32 (`tokens.py`), the codes first and then the c
integers of the code's continuous parts (`heads.py`), which need L = 1; c = 0 for plain codes. The network embeds these
and nothing else, so moving a number inside its bin or cell changes nothing.
"""

import math
from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.networks.layers import embedding_init
from hvq_jax.priors.heads import CodeHead


@struct.dataclass
class Nats:
    """Negative log-probabilities, float32; `[B, h, w]` of positions or `[B]` of whole latents."""

    codes: jax.Array  # all of a position's
    continuous: jax.Array  # 0 where the code has no continuous part
    of_each_code: jax.Array | None = None  # [..., L], which add up to `codes`; None for one code per position

    @property
    def total(self) -> jax.Array:
        """The sum of both parts."""
        return self.codes + self.continuous

    def of_latents(self) -> "Nats":
        """Return the sums over the positions."""
        return jax.tree.map(lambda nats: nats.sum(axis=(1, 2)), self)


class Prior(nn.Module):
    """A prior over codes and continuous parts, given the positions before and a class label.

    >>> from hvq_jax.priors.pixelcnn import PixelCNN
    >>> prior, tokens = Prior(num_codes=5, network=PixelCNN(width=4, num_layers=1)), jnp.zeros((7, 2, 3, 1), int)
    >>> variables = jax.jit(prior.init)(jax.random.key(0), tokens)
    >>> jax.jit(prior.apply)(variables, tokens).of_latents().total.shape
    (7,)
    """

    num_codes: int
    network: Any  # see `network.py`
    heads: tuple[Any, ...] = ()  # of the continuous parts, in the order of their tokens; see `heads.py`
    head_width: int = 512
    codes_per_position: int = 1  # L

    def __post_init__(self) -> None:
        """Raise ArgumentError for a number of codes that is out of range, or that continuous parts rule out."""
        given = f"codes_per_position={self.codes_per_position}"
        if self.codes_per_position < 1:
            raise ArgumentError(given, "must be at least 1")
        if self.codes_per_position > 1 and self.heads:
            raise ArgumentError(given, "must be 1 for a prior with heads: a continuous part belongs to one code")
        super().__post_init__()

    def setup(self) -> None:
        """Define the parameters; "next_code_head" is singular because Flax appends the index."""
        count = self.codes_per_position
        # The sum over a position is as large as the embedding of a single code.
        init = nn.initializers.normal(stddev=1 / math.sqrt(count)) if count > 1 else embedding_init
        self.embedding = nn.Embed(count * self.num_codes, self.network.width, embedding_init=init)
        sizes = self.num_codes, self.head_width, self.network.compute_dtype
        self.code_head = CodeHead(*sizes)
        self.next_code_head = [CodeHead(*sizes) for _ in range(1, count)]

    @property
    def num_classes(self) -> int:
        """The number of classes; 0: unconditional."""
        return self.network.num_classes

    @property
    def num_channels(self) -> int:
        """The number of tokens per position, L + c."""
        return self.codes_per_position + sum(head.channels for head in self.heads)

    def __call__(
        self,
        tokens: ArrayLike,
        labels: ArrayLike | None = None,
        has_continuous: ArrayLike | None = None,
        *,
        train: bool = False,
    ) -> Nats:
        """Score every position of known latents in one pass.

        Args:
            tokens: [B, h, w, L + c] int32.
            labels: [B] int32, -1 for no class; None where the network is unconditional.
            has_continuous: [P, K] bool, which codes have the part that each of P heads predicts; not needed without
                heads.
            train: whether dropout is on; it then needs rngs "dropout".

        Returns:
            Nats of every position, [B, h, w]. A code or label past its range makes them NaN.

        Raises:
            ArgumentError: labels are missing from a conditional network or given to an unconditional one, or
                `has_continuous` is missing.
        """
        tokens = jnp.asarray(tokens)
        labels = None if labels is None else jnp.asarray(labels)
        has_continuous = None if has_continuous is None else jnp.asarray(has_continuous)
        features = self.features(tokens, labels, has_continuous, train=train)
        return self.nats(features, tokens, has_continuous)

    def features(
        self, tokens: jax.Array, labels: jax.Array | None, has_continuous: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """Return [B, h, w, width] float32; the features of a position depend on the positions before it only."""
        return self.network(self.embed(tokens, has_continuous), labels, train=train)

    def embed(self, tokens: jax.Array, has_continuous: jax.Array | None) -> jax.Array:
        """Map tokens [..., L + c] to [..., width] float32."""
        codes, continuous = self._split(tokens)
        embedded = self._embed_code(codes[..., 0], 0)
        for level in range(1, self.codes_per_position):
            embedded = embedded + self._embed_code(codes[..., level], level)
        for head, has_part, part in self._parts(codes[..., 0], continuous, has_continuous):
            embedded = embedded + jnp.where(has_part[..., None], head.embed(part), 0.0)
        return embedded

    def _split(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the codes [..., L] and the continuous parts [..., c] of tokens."""
        return tokens[..., : self.codes_per_position], tokens[..., self.codes_per_position :]

    def _embed_code(self, code: jax.Array, level: int) -> jax.Array:
        """Map a code [...] of `level`, from 0 to L - 1, to [..., width]."""
        return self.embedding(code + level * self.num_codes)

    def _parts(
        self, codes: jax.Array, continuous: jax.Array, has_continuous: jax.Array | None
    ) -> Iterator[tuple[Any, jax.Array, jax.Array]]:
        """Yield each head, where codes [...] have its part, [...] bool, and its tokens [..., c]."""
        if not self.heads:
            return
        if has_continuous is None:
            raise ArgumentError("has_continuous", "needed by a prior with heads: which codes have a continuous part")
        first = 0
        for head, has_part in zip(self.heads, jnp.asarray(has_continuous), strict=True):
            yield head, has_part[codes], continuous[..., first : first + head.channels]
            first += head.channels

    def code_logits(self, context: jax.Array, level: int = 0) -> jax.Array:
        """Return the logits [..., K] float32 of a position's code `level`, from 0 to L - 1.

        Args:
            context: [..., width] float32, the features for the first code, then what `next_context` returned.
            level: the number of the position's codes before it.
        """
        head = self.next_code_head[level - 1] if level else self.code_head
        return head(context)

    def next_context(self, context: jax.Array, code: jax.Array, level: int) -> jax.Array:
        """Return the context of the code after `code` [...] int32, which is that of `level`; see `code_logits`."""
        return context + self._embed_code(code, level)

    def nats(self, features: ArrayLike, tokens: ArrayLike, has_continuous: ArrayLike | None) -> Nats:
        """Score tokens [..., L + c] given the features [..., width] of the same positions."""
        features, tokens = jnp.asarray(features), jnp.asarray(tokens)
        has_continuous = None if has_continuous is None else jnp.asarray(has_continuous)
        codes, parts = self._split(tokens)
        of_each = list(self._code_nats(features, codes))
        nats = sum(of_each[1:], of_each[0])
        continuous, code = jnp.zeros_like(nats), codes[..., 0]
        for head, has_part, part in self._parts(code, parts, has_continuous):
            continuous = continuous - jnp.where(has_part, head.log_probability(features, code, part), 0.0)
        return Nats(nats, continuous, jnp.stack(of_each, axis=-1) if len(of_each) > 1 else None)

    def _code_nats(self, context: jax.Array, codes: jax.Array) -> Iterator[jax.Array]:
        """Yield -log p [...] of each of codes [..., L], given those before it."""
        for level in range(self.codes_per_position):
            log_probabilities = jax.nn.log_softmax(self.code_logits(context, level))
            yield -jnp.take_along_axis(log_probabilities, codes[..., level, None], axis=-1)[..., 0]
            if level + 1 < self.codes_per_position:
                context = self.next_context(context, codes[..., level], level)

    def density(
        self, tokens: ArrayLike, labels: ArrayLike | None, has_continuous: ArrayLike, residuals: ArrayLike
    ) -> jax.Array:
        """Score residuals by density, -log p per unit of volume, instead of the probability of their cells.

        It must not be added to the nats of codes.

        Args:
            tokens: as in a call of the module, like `labels` and `has_continuous`; the context of each position.
            labels: see there.
            has_continuous: see there.
            residuals: [B, h, w, D] float32, before rounding.

        Returns:
            [B, h, w] float32 nats, 0 where there is no residual.
        """
        tokens, has_continuous, residuals = jnp.asarray(tokens), jnp.asarray(has_continuous), jnp.asarray(residuals)
        labels = None if labels is None else jnp.asarray(labels)
        features, (codes, continuous) = self.features(tokens, labels, has_continuous), self._split(tokens)
        density, code = jnp.zeros(codes.shape[:-1], jnp.float32), codes[..., 0]
        for head, has_part, _ in self._parts(code, continuous, has_continuous):
            if hasattr(head, "log_density"):
                density = density - jnp.where(has_part, head.log_density(features, code, residuals), 0.0)
        return density

    def draw_continuous(
        self,
        features: jax.Array,
        codes: jax.Array,
        has_continuous: jax.Array | None,
        keys: jax.Array,
        temperature: float,
    ) -> jax.Array:
        """Return tokens [B, L + c] of codes [B, L], with continuous parts drawn from features [B, width], else 0."""
        tokens, code = [codes], codes[:, 0]
        blank = jnp.zeros((codes.shape[0], self.num_channels - self.codes_per_position), jnp.int32)
        for head, has_part, _ in self._parts(code, blank, has_continuous):
            drawn = head.draw(features, code, keys, temperature=temperature)
            tokens.append(jnp.where(has_part[:, None], drawn, 0))
        return jnp.concatenate(tokens, axis=-1)

    def begin_row(self, memory: Any, labels: jax.Array | None) -> Any:
        """See `network.py`."""
        return self.network.begin_row(memory, labels)

    def next_features(self, memory: Any, column: jax.Array) -> tuple[Any, jax.Array]:
        """See `network.py`."""
        return self.network.next_features(memory, column)

    def remember(self, memory: Any, tokens: jax.Array, has_continuous: jax.Array | None, column: jax.Array) -> Any:
        """Return the memory updated with the tokens `[B, L + c]` of that position."""
        return self.network.remember(memory, self.embed(tokens, has_continuous), column)
