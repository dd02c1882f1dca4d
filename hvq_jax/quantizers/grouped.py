"""Grouped codes, or product quantization: z_e is split into g groups of D/g channels, and each group has its own code.

Jégou et al., 2011, "Product quantization for nearest neighbor search"; in networks also called heads. There are K^g
combinations, for the time of a search over K codes of D channels. A group is quantized as if it were all there is, in
every way that `CodebookQuantizer` knows for the latent `vq`: with g = 1 the result is the same, bit for bit.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from hvq_jax import latents
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import HybridLatent
from hvq_jax.quantizers.bottleneck import CodebookQuantizer, Params, QuantizerState, Step
from hvq_jax.quantizers.several import SeveralCodebooks


@dataclasses.dataclass(frozen=True)
class GroupedQuantizer(SeveralCodebooks):
    """g = `codebook.groups` codes per position, from a codebook each, or from one if `codebook.share_codes`.

    Arrays lead with an axis g, or 1 for a shared codebook, whose vectors are the groups of all positions.
    """

    family: ClassVar[str] = "grouped"
    option_names: ClassVar[tuple[str, ...]] = (*CodebookQuantizer.option_names, "groups", "share_codes")
    has_entropy_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        super().__post_init__()
        if self.latent_options.dim % self.codebook_options.groups:
            raise ArgumentError(
                f"codebook.groups={self.codebook_options.groups}", f"must divide latent.dim={self.latent_options.dim}"
            )
        _ = self.one  # raises if options do not fit it

    @property
    def index_shape(self) -> tuple[int, ...]:
        """g codes per position."""
        return (self.codebook_options.groups,)

    @property
    def num_codebooks(self) -> int:
        """The number of codebooks, g, or 1 if they are shared."""
        return 1 if self.codebook_options.share_codes else self.codebook_options.groups

    @property
    def one(self) -> CodebookQuantizer:
        """The quantizer of a group."""
        dim = self.latent_options.dim // self.codebook_options.groups
        return CodebookQuantizer(
            dataclasses.replace(self.latent_options, dim=dim, projection_groups=1),
            dataclasses.replace(self.codebook_options, family="codebook"),
        )

    def _split(self, z_e: jax.Array) -> jax.Array:
        """Return `[..., D]` as vectors by codebook: `[g, ..., D/g]`, or `[1, ..., g, D/g]` if they share one."""
        groups = z_e.reshape(*z_e.shape[:-1], self.codebook_options.groups, -1)
        return groups[None] if self.codebook_options.share_codes else jnp.moveaxis(groups, -2, 0)

    def _join(self, values: jax.Array) -> jax.Array:
        """Return values `[..., g, n]` from what `_split` arranges as `[g, ..., n]` or `[1, ..., g, n]`."""
        return values[0] if self.codebook_options.share_codes else jnp.moveaxis(values, 0, -2)

    def _each(self, mask: jax.Array | None) -> jax.Array | None:
        """Return the mask of a codebook's vectors."""
        if mask is None or not self.codebook_options.share_codes:
            return mask
        return jnp.broadcast_to(mask[..., None], (*mask.shape, self.codebook_options.groups))

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Start each codebook from its groups."""
        mask = self._each(mask)

        def start(each: tuple[Params, QuantizerState, jax.Array, jax.Array]) -> tuple[Params, QuantizerState]:
            params, state, vectors, one_key = each
            return self.one.start_from_data(params, state, vectors, one_key, axis_name, mask)

        started: tuple[Params, QuantizerState] = jax.lax.map(start, (params, state, self._split(z_e), self.keys(key)))
        return started

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return z_e in float32, each group at length 1 where encoder outputs are normalised."""
        return self._join(self.one.normalise(self._split(z_e))).reshape(z_e.shape)

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the codes of all groups, `[g, K, D/g]`."""
        codes = super().codes(params, state)
        return jnp.broadcast_to(codes, (self.codebook_options.groups, *codes.shape[1:]))

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the codes `[..., D]` of `indices` `[..., g]`, side by side."""
        codes = self.codes(params, state)
        parts = [codes[group][indices[..., group]] for group in range(self.codebook_options.groups)]
        return jnp.concatenate(parts, axis=-1)

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the sum of the entropy terms of all codebooks."""
        mask = self._each(mask)

        def of_codebook(each: tuple[jax.Array, jax.Array]) -> jax.Array:
            vectors, codes = each
            return self.one.entropy(vectors, dataclasses.replace(step, codes=codes), temperature, axis_name, mask)

        # A frozen codebook that groups share is listed once per group.
        return jnp.sum(jax.lax.map(of_codebook, (self._split(z_e), step.codes[: self.num_codebooks])))

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Train each codebook on its groups."""
        mask = self._each(mask)

        def learn(each: tuple[Params, QuantizerState, jax.Array, jax.Array]) -> tuple[HybridLatent, Step]:
            params, state, vectors, one_key = each
            return self.one.step(params, state, vectors, one_key, axis_name, mask)

        each, step = jax.lax.map(learn, (params, state, self._split(z_e), self.keys(key)))
        latent = self._side_by_side(z_e, each)
        return latent, dataclasses.replace(step, indices=latent.indices)

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent from the current codes; update nothing."""
        each = jax.lax.map(lambda each: self.one.quantize(*each), (params, state, self._split(z_e)))
        return self._side_by_side(z_e, each)

    def _side_by_side(self, z_e: jax.Array, each: HybridLatent) -> HybridLatent:
        """Return the latents of all codebooks, whose vectors are arranged as by `_split`, as one."""
        z_bar, z_q = (self._join(part).reshape(z_e.shape) for part in (each.z_bar, each.z_q))
        indices, gain = (self._join(part[..., None])[..., 0] for part in (each.indices, each.gain))
        return dataclasses.replace(latents.plain_latent(z_e, z_q, indices, z_bar), gain=gain)
