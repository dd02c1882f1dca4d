"""A prior over hybrid latents: a network over earlier positions, a head for codes, and heads for continuous parts.

    p(latent | y) = Π_i p(k_i | <i, y) · p(c_i | k_i, <i, y) where code k_i has a continuous part

A latent is given as what is transmitted: tokens `[B, h, w, 1 + c]` int32 (`tokens.py`), the code first and then the c
integers of its continuous parts (`heads.py`); c = 0 for plain codes. The network embeds these and nothing else, so
moving a number inside its bin or cell changes nothing.
"""

from collections.abc import Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct

from hvq_jax.errors import ArgumentError
from hvq_jax.networks.layers import embedding_init
from hvq_jax.priors.heads import CodeHead


@struct.dataclass
class Nats:
    """Negative log-probabilities, float32; `[B, h, w]` of positions or `[B]` of whole latents."""

    codes: jax.Array
    continuous: jax.Array  # 0 where the code has no continuous part

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
    >>> variables = prior.init(jax.random.key(0), tokens)
    >>> prior.apply(variables, tokens).of_latents().total.shape
    (7,)
    """

    num_codes: int
    network: Any  # see `network.py`
    heads: tuple[Any, ...] = ()  # of the continuous parts, in the order of their tokens; see `heads.py`
    head_width: int = 512

    def setup(self) -> None:
        """Define the parameters."""
        self.embedding = nn.Embed(self.num_codes, self.network.width, embedding_init=embedding_init)
        self.code_head = CodeHead(self.num_codes, self.head_width, self.network.compute_dtype)

    @property
    def num_classes(self) -> int:
        """The number of classes; 0: unconditional."""
        return self.network.num_classes

    @property
    def num_channels(self) -> int:
        """The number of tokens per position, 1 + c."""
        return 1 + sum(head.channels for head in self.heads)

    def __call__(
        self,
        tokens: jax.Array,
        labels: jax.Array | None = None,
        has_continuous: jax.Array | None = None,
        *,
        train: bool = False,
    ) -> Nats:
        """Score every position of known latents in one pass.

        Args:
            tokens: [B, h, w, 1 + c] int32.
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
        features = self.features(tokens, labels, has_continuous, train=train)
        return self.nats(features, tokens, has_continuous)

    def features(
        self, tokens: jax.Array, labels: jax.Array | None, has_continuous: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """Return [B, h, w, width] float32; the features of a position depend on the positions before it only."""
        return self.network(self.embed(tokens, has_continuous), labels, train=train)

    def embed(self, tokens: jax.Array, has_continuous: jax.Array | None) -> jax.Array:
        """Map tokens [..., 1 + c] to [..., width] float32."""
        embedded = self.embedding(tokens[..., 0])
        for head, has_part, part in self._parts(tokens[..., 0], tokens[..., 1:], has_continuous):
            embedded = embedded + jnp.where(has_part[..., None], head.embed(part), 0.0)
        return embedded

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

    def code_logits(self, features: jax.Array) -> jax.Array:
        """Map features [..., width] to logits [..., K] float32."""
        return self.code_head(features)

    def nats(self, features: jax.Array, tokens: jax.Array, has_continuous: jax.Array | None) -> Nats:
        """Score tokens [..., 1 + c] given the features [..., width] of the same positions."""
        codes = tokens[..., 0]
        log_probabilities = jax.nn.log_softmax(self.code_logits(features))
        nats = -jnp.take_along_axis(log_probabilities, codes[..., None], axis=-1)[..., 0]
        continuous = jnp.zeros_like(nats)
        for head, has_part, part in self._parts(codes, tokens[..., 1:], has_continuous):
            continuous = continuous - jnp.where(has_part, head.log_probability(features, codes, part), 0.0)
        return Nats(nats, continuous)

    def density(
        self, tokens: jax.Array, labels: jax.Array | None, has_continuous: jax.Array, residuals: jax.Array
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
        features, codes = self.features(tokens, labels, has_continuous), tokens[..., 0]
        density = jnp.zeros(codes.shape, jnp.float32)
        for head, has_part, _ in self._parts(codes, tokens[..., 1:], has_continuous):
            if hasattr(head, "log_density"):
                density = density - jnp.where(has_part, head.log_density(features, codes, residuals), 0.0)
        return density

    def draw_continuous(
        self,
        features: jax.Array,
        codes: jax.Array,
        has_continuous: jax.Array | None,
        keys: jax.Array,
        temperature: float,
    ) -> jax.Array:
        """Return tokens [B, 1 + c] of codes [B], with continuous parts drawn from features [B, width], else 0."""
        tokens = [codes[:, None]]
        blank = jnp.zeros((len(codes), self.num_channels - 1), jnp.int32)
        for head, has_part, _ in self._parts(codes, blank, has_continuous):
            drawn = head.draw(features, codes, keys, temperature=temperature)
            tokens.append(jnp.where(has_part[:, None], drawn, 0))
        return jnp.concatenate(tokens, axis=-1)

    def begin_row(self, memory: Any, labels: jax.Array | None) -> Any:
        """See `network.py`."""
        return self.network.begin_row(memory, labels)

    def next_features(self, memory: Any, column: jax.Array) -> tuple[Any, jax.Array]:
        """See `network.py`."""
        return self.network.next_features(memory, column)

    def remember(self, memory: Any, tokens: jax.Array, has_continuous: jax.Array | None, column: jax.Array) -> Any:
        """Return the memory updated with the tokens `[B, 1 + c]` of that position."""
        return self.network.remember(memory, self.embed(tokens, has_continuous), column)
