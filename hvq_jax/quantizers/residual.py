"""Residual quantization: a sum of codes from separate codebooks, each nearest to the rest left by the previous ones.

Zeghidour et al., SoundStream, 2021 (arXiv:2107.03312), with moving averages as there. A baseline for codes with gains:
K codes with G gains make a codebook of K·G constrained vectors, and so do two codebooks of K and G codes.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import HybridLatent
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Params, QuantizerState, Step, estimator_noise
from hvq_jax.quantizers.several import SeveralCodebooks


def sum_of_codes(indices: jax.Array, codebooks: jax.Array) -> jax.Array:
    """Return z_q `[..., D]` from `indices` `[..., L]` and L `codebooks` `[L, K, D]`.

    >>> sum_of_codes(jnp.array([1, 0]), jnp.array([[[1.0], [2.0]], [[0.5], [0.25]]])).tolist()
    [2.5]
    """
    first, *others = (codes[indices[..., level]] for level, codes in enumerate(codebooks))
    return sum(others, first)


@dataclasses.dataclass(frozen=True)
class ResidualQuantizer(SeveralCodebooks):
    """L = `codebook.depth` codebooks of K codes, one per level."""

    family: ClassVar[str] = "residual"
    option_names: ClassVar[tuple[str, ...]] = ("init", "decay", "revive_below", "depth")

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        super().__post_init__()
        if self.codebook_options.depth == 1:
            raise ArgumentError("codebook.depth=1", "codebook.family=residual needs from 2 to 4 codebooks")

    @property
    def one(self) -> CodebookQuantizer:
        """The quantizer of a level."""
        return CodebookQuantizer(
            self.latent_options, dataclasses.replace(self.codebook_options, family="codebook", depth=1)
        )

    @property
    def index_shape(self) -> tuple[int, ...]:
        """L codes per position."""
        return (self.codebook_options.depth,)

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Start each codebook from what the previous ones leave of z_e."""

        def start(
            rest: jax.Array, level: tuple[Params, QuantizerState, jax.Array]
        ) -> tuple[jax.Array, tuple[Params, QuantizerState]]:
            params, state, level_key = level
            started = self.one.start_from_data(params, state, rest, level_key, axis_name, mask)
            codes = self.one.codes(*started)
            return rest - codes[nearest_codes(rest, codes)], started

        return jax.lax.scan(start, z_e, (params, state, self.keys(key)))[1]

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return z_e in float32."""
        return z_e.astype(jnp.float32)

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the sums `[..., D]` of the codes of `indices` `[..., L]`."""
        return sum_of_codes(indices, self.codes(params, state))

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Train each codebook on what the previous ones leave."""

        def learn(rest: jax.Array, level: tuple[Params, QuantizerState, jax.Array]) -> tuple[jax.Array, Step]:
            params, state, level_key = level
            step = self.one.learn(params, state, rest, level_key, axis_name, mask)
            return rest - step.codes[step.indices], step

        _, step = jax.lax.scan(learn, stop_gradient(z_e), (params, state, self.keys(key)))
        step = dataclasses.replace(step, indices=jnp.moveaxis(step.indices, 0, -1))
        noise = estimator_noise(self.latent_options, z_e, key, axis_name)
        return self._latent(z_e, step.codes, step.indices, noise), step

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent from the current codes; update nothing."""

        def assign(rest: jax.Array, codes: jax.Array) -> tuple[jax.Array, jax.Array]:
            indices = nearest_codes(rest, codes)
            return rest - codes[indices], indices

        codes = self.codes(params, state)
        _, indices = jax.lax.scan(assign, z_e, codes)
        return self._latent(z_e, codes, jnp.moveaxis(indices, 0, -1))

    def _latent(
        self, z_e: jax.Array, codes: jax.Array, indices: jax.Array, noise: jax.Array | None = None
    ) -> HybridLatent:
        z_q = sum_of_codes(indices, codes)
        z_bar = latents.ESTIMATORS[self.latent_options.estimator](z_e, z_q, noise)
        return latents.plain_latent(z_e, z_q, indices, z_bar)
