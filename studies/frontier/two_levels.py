"""Residual quantization with K codes and then G: a control for K codes with G gains, which cost the same indices.

    --config.codebook.family=studies.frontier.two_levels:TwoLevels --config.codebook.depth=2 --config.codebook.bits=3

has K codes in its first codebook and G = 2³ in its second; otherwise it is `codebook.family=residual`.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import HybridLatent
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Params, QuantizerState, Step, estimator_noise
from hvq_jax.quantizers.options import CodebookOptions
from hvq_jax.quantizers.residual import ResidualQuantizer


@dataclasses.dataclass(frozen=True)
class TwoLevels(ResidualQuantizer):
    """Codebooks of K = `latent.num_codes` codes, and of G = 2 to the power of `codebook.bits` codes, at most K."""

    family: ClassVar[str] = "two_levels"
    option_names: ClassVar[tuple[str, ...]] = (*ResidualQuantizer.option_names, "bits")

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        super().__post_init__()
        if self.codebook_options.depth != 2:
            raise ArgumentError(f"codebook.depth={self.codebook_options.depth}", "must be 2 for two levels")
        if self.num_second > self.num_codes:
            raise ArgumentError(f"codebook.bits={self.codebook_options.bits}", f"needs {self.num_second} codes or more")

    @property
    def num_second(self) -> int:
        """The number of codes in the second codebook, G."""
        return 2**self.codebook_options.bits

    @property
    def one(self) -> CodebookQuantizer:
        """The quantizer of the first level."""
        options = dataclasses.replace(self.codebook_options, family="codebook", depth=1, bits=CodebookOptions().bits)
        return CodebookQuantizer(self.latent_options, options)

    @property
    def each(self) -> tuple[CodebookQuantizer, CodebookQuantizer]:
        """The quantizers of both levels. Params are a pair, and so is what the state keeps as `learned`."""
        second = dataclasses.replace(self.latent_options, num_codes=self.num_second)
        return self.one, dataclasses.replace(self.one, latent_options=second)

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return the codebooks, each from its own key."""
        return self._together([one.init(of_level) for one, of_level in zip(self.each, self.keys(key), strict=True)])

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Start each codebook from what the previous one leaves of z_e."""
        rest, started = z_e, []
        for one, level_params, level, level_key in zip(self.each, params, state.learned, self.keys(key), strict=True):
            started.append(one.start_from_data(level_params, level, rest, level_key, axis_name, mask))
            codes = one.codes(*started[-1])
            rest = rest - codes[nearest_codes(rest, codes)]
        return self._together(started)

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return `[2, K, D]`; the codes of the second level from G on are 0 and never assigned."""
        found = [one.codes(*arrays) for one, *arrays in zip(self.each, params, state.learned, strict=True)]
        return self._stacked(found)

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Train each codebook on what the previous one leaves."""
        rest, steps = stop_gradient(z_e), []
        for one, level_params, level, level_key in zip(self.each, params, state.learned, self.keys(key), strict=True):
            steps.append(one.learn(level_params, level, rest, level_key, axis_name, mask))
            rest = rest - steps[-1].codes[steps[-1].indices]
        step = Step(
            self._together([(part, each.state) for part, each in zip(params, steps, strict=True)])[1],
            codes=self._stacked([each.codes for each in steps]),
            indices=jnp.stack([each.indices for each in steps], axis=-1),
            counts=self._stacked([each.counts for each in steps]),
            revived=self._stacked([each.revived for each in steps]),
        )
        noise = estimator_noise(self.latent_options, z_e, key, axis_name)
        return self._latent(z_e, step.codes, step.indices, noise), step

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent from the current codes; update nothing."""
        codes = self.codes(params, state)
        first = nearest_codes(z_e, codes[0])
        second = nearest_codes(z_e - codes[0][first], codes[1, : self.num_second])
        return self._latent(z_e, codes, jnp.stack([first, second], axis=-1))

    def _together(self, made: list[tuple[Params, QuantizerState]]) -> tuple[Params, QuantizerState]:
        """Return the params and states of both levels as those of this quantizer."""
        params, states = zip(*made, strict=True)
        return params, QuantizerState(self._stacked([state.frequency for state in states]), states)

    def _stacked(self, levels: list[jax.Array]) -> jax.Array:
        """Return values of codes, `[K, ...]` and `[G, ...]`, as `[2, K, ...]`, with zeros from G on."""
        first, second = levels
        return jnp.stack([first, jnp.zeros_like(first).at[: self.num_second].set(second)])
