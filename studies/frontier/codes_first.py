"""The other order of transmission: all codes first, then the continuous parts, each given all codes.

    p(latent) = p(k) · Π_i p(c_i | k, <i)

where the usual prior has c_i before the next code, p(k_i | <i) · p(c_i | k_i, <i). Here a continuous part sees the
codes behind it, and no code sees a continuous part. The first factor is that of the prior over codes alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from hvq_jax.networks.layers import Conv
from hvq_jax.priors.prior import Nats, Prior

_NUM_CONVOLUTIONS = 2


class ContinuousGivenCodes(Prior):
    """A prior over the continuous parts of latents whose codes are all known; `Nats.codes` are 0.

    The features of a position are those of `Prior`, which see the positions before it, and the sum of convolutions of
    the embedded codes, which see those around it.
    """

    def setup(self) -> None:
        """Define the parameters."""
        super().setup()
        width = self.network.width
        self.around = [
            Conv(width, kernel_size=(3, 3), padding=((1, 1), (1, 1)), dtype=self.network.compute_dtype)
            for _ in range(_NUM_CONVOLUTIONS)
        ]

    def features(
        self, tokens: jax.Array, labels: jax.Array | None, has_continuous: jax.Array | None, *, train: bool = False
    ) -> jax.Array:
        """Return [B, h, w, width] float32, of the parts before a position and of all codes."""
        around = self.embedding(tokens[..., 0])
        for convolution in self.around:
            around = around + convolution(nn.relu(around))
        return super().features(tokens, labels, has_continuous, train=train) + around.astype(jnp.float32)

    def nats(self, features: Any, tokens: Any, has_continuous: Any) -> Nats:
        """Score the continuous parts only."""
        codes, parts = self._split(jnp.asarray(tokens))
        code = codes[..., 0]
        continuous = jnp.zeros(code.shape, jnp.float32)
        for head, has_part, part in self._parts(code, parts, has_continuous):
            continuous = continuous - jnp.where(has_part, head.log_probability(features, code, part), 0.0)
        return Nats(jnp.zeros_like(continuous), continuous)
