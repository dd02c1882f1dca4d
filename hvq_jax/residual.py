"""Residual quantization: a sum of codes, each from a codebook of its own, each nearest to what the former left over.

Zeghidour et al., SoundStream, 2021 (arXiv:2107.03312), with codebooks of moving averages as there. A baseline for codes
with gains: K codes with G gains are a codebook of K·G constrained vectors, and so are two codebooks of K and G.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import latents
from hvq_jax.assignment import nearest_codes
from hvq_jax.bottleneck import CodebookBottleneck, CodebookOptions, CodebookState, LatentOptions, Learned
from hvq_jax.latents import HybridLatent


def sum_of_codes(indices: jax.Array, codebooks: jax.Array) -> jax.Array:
    """z_q `[..., D]` from `indices` `[..., L]` and L `codebooks` `[L, K, D]`."""
    first, *others = (codes[indices[..., level]] for level, codes in enumerate(codebooks))
    return sum(others, first)


@dataclasses.dataclass(frozen=True)
class ResidualBottleneck:
    """L = `codebook.depth` codebooks of K codes: indices are `[..., L]`; codes, F and averages lead with an axis L."""

    latent: LatentOptions
    codebook: CodebookOptions

    @property
    def _level(self) -> CodebookBottleneck:
        return CodebookBottleneck(self.latent, self.codebook)

    def _keys(self, key: jax.Array) -> jax.Array:
        return jax.random.split(key, self.codebook.depth)

    def init(self, key: jax.Array) -> CodebookState:
        """L codebooks, each from its own key."""
        return jax.vmap(self._level.init)(self._keys(key))

    @property
    def starts_from_data(self) -> bool:
        """As one codebook."""
        return self._level.starts_from_data

    def start_from_data(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> CodebookState:
        """Each codebook from what the former ones leave over of z_e."""

        def start(rest: jax.Array, level: tuple[CodebookState, jax.Array]) -> tuple[jax.Array, CodebookState]:
            fresh, level_key = level
            started = self._level.start_from_data(fresh, rest, level_key, axis_name)
            codes = self._level.codes(started)
            return rest - codes[nearest_codes(rest, codes)], started

        return jax.lax.scan(start, z_e, (state, self._keys(key)))[1]

    def codes(self, state: CodebookState) -> jax.Array:
        """`[L, K, D]`."""
        return self._level.codes(state)

    def train(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> tuple[HybridLatent, Learned]:
        """A step of each codebook on what the former ones leave over."""

        def learn(rest: jax.Array, level: tuple[CodebookState, jax.Array]) -> tuple[jax.Array, Learned]:
            before, level_key = level
            learned = self._level.learn(before, rest, level_key, axis_name)
            return rest - learned.codes[learned.indices], learned

        _, learned = jax.lax.scan(learn, stop_gradient(z_e), (state, self._keys(key)))
        learned = dataclasses.replace(learned, indices=jnp.moveaxis(learned.indices, 0, -1))
        return self._latent(z_e, learned.codes, learned.indices), learned

    def quantize(self, state: CodebookState, z_e: jax.Array) -> HybridLatent:
        """The latent by the codes as they stand."""

        def assign(rest: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
            indices = nearest_codes(rest, codes)
            return rest - codes[indices], indices

        codes = self.codes(state)
        _, indices = jax.lax.scan(assign, z_e, codes)
        return self._latent(z_e, codes, jnp.moveaxis(indices, 0, -1))

    def _latent(self, z_e: jax.Array, codes: jax.Array, indices: jax.Array) -> HybridLatent:
        z_q = sum_of_codes(indices, codes)
        return latents.plain_latent(z_e, z_q, indices, latents.ESTIMATORS[self.latent.estimator](z_e, z_q))
