"""Finite scalar quantization: z_e becomes a few numbers, each bounded and rounded to one of its levels; no codebook.

Mentzer et al., 2023 (arXiv:2309.15505). The K = Π levels combinations are numbered, so that a prior over codes works
here too. Learned linear maps take the D channels of z_e to the d numbers, and these to the D channels of the decoder.
"""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import latents
from hvq_jax.latents import HybridLatent
from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.bottleneck import Params, QuantizerState, Step, require
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions

_MARGIN = 1e-3  # keeps tanh from ever rounding to one level too many

Levels = tuple[int, ...]


def bound(numbers: jax.Array, levels: Levels) -> jax.Array:
    """Bound `numbers` `[..., d]` so that each rounds to one of `level` integers, starting at −⌊level/2⌋.

    An even number of levels lies half an integer lower, and the input is shifted so that numbers near 0 stay there
    (the paper's appendix A.1). Two levels are divided at 0 instead: with the shift, -1.56 and more would be the upper.

    >>> bound(jnp.array([-9.0, 0.0, 9.0]), (3, 3, 3)).round().tolist()
    [-1.0, 0.0, 1.0]
    """
    sizes = jnp.array(levels, jnp.float32)
    half = (sizes - 1) * (1 - _MARGIN) / 2
    offset = jnp.where(sizes % 2 == 0, 0.5, 0.0)
    shift = jnp.where(sizes == 2, 0.0, jnp.tan(offset / half))
    return half * jnp.tanh(numbers + shift) - offset


def to_indices(numbers: jax.Array, levels: Levels) -> jax.Array:
    """Return the indices `[...]` int32, in 0 … K − 1, of integers `[..., d]`; the first integer changes fastest.

    >>> to_indices(jnp.array([[-1, -1], [0, -1], [1, 1]]), (3, 3)).tolist()
    [0, 1, 8]
    """
    digits = numbers.astype(jnp.int32) + _halves(levels)
    return jnp.sum(digits * jnp.array(_factors(levels), jnp.int32), axis=-1, dtype=jnp.int32)


def integers(levels: Levels) -> jax.Array:
    """Return the integers of every index, `[K, d]` float32: the inverse of `to_indices`.

    >>> integers((2, 2)).tolist()
    [[-1.0, -1.0], [0.0, -1.0], [-1.0, 0.0], [0.0, 0.0]]
    """
    indices = jnp.arange(math.prod(levels), dtype=jnp.int32)[:, None]
    digits = indices // jnp.array(_factors(levels), jnp.int32) % jnp.array(levels, jnp.int32)
    return (digits - _halves(levels)).astype(jnp.float32)


def _factors(levels: Levels) -> list[int]:
    return [math.prod(levels[:i]) for i in range(len(levels))]


def _halves(levels: Levels) -> jax.Array:
    return jnp.array([level // 2 for level in levels], jnp.int32)


def round_straight_through(numbers: jax.Array) -> jax.Array:
    """Round exactly in the forward pass; pass the gradient through unchanged.

    >>> round_straight_through(jnp.array(1.6)).item(), jax.grad(round_straight_through)(1.6).item()
    (2.0, 1.0)
    """
    return latents.straight_through(numbers, jnp.round(numbers))


def _linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"]


@dataclasses.dataclass(frozen=True)
class ScalarQuantizer:
    """The latent `vq` with the codes up(rounded numbers), `[K, D]`; `params` hold the maps "down" and "up"."""

    latent_options: LatentOptions
    codebook_options: CodebookOptions

    option_names: ClassVar[tuple[str, ...]] = ("levels",)
    has_codebook_loss: ClassVar[bool] = False  # no codes are learned
    has_commitment_loss: ClassVar[bool] = False  # there are no codes to commit to
    has_entropy_loss: ClassVar[bool] = False  # codes have no costs
    has_prior: ClassVar[bool] = True
    starts_from_data: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        require("fsq", self.latent_options, mode="vq", estimator="straight_through")

    @property
    def num_codes(self) -> int:
        """K, the product of the levels."""
        return math.prod(self.codebook_options.levels)

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return Xavier-uniform maps with zero bias, as in the networks."""
        dim, size = self.latent_options.dim, len(self.codebook_options.levels)
        kernel = jax.nn.initializers.xavier_uniform()
        down, up = jax.random.split(key)
        params: dict[str, Any] = {
            "down": {"kernel": kernel(down, (dim, size), jnp.float32), "bias": jnp.zeros(size, jnp.float32)},
            "up": {"kernel": kernel(up, (size, dim), jnp.float32), "bias": jnp.zeros(dim, jnp.float32)},
        }
        return params, QuantizerState(jnp.zeros(self.num_codes, jnp.float32))

    @property
    def index_shape(self) -> tuple[int, ...]:
        """One code per position."""
        return ()

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Return the arrays unchanged."""
        del z_e, key, axis_name, mask
        return params, state

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return z_e in float32."""
        return z_e.astype(jnp.float32)

    def _up(self, params: Params, numbers: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of integers `[..., d]`, each scaled to [-1, 1] first."""
        return _linear(params["up"], numbers / _halves(self.codebook_options.levels))

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the decoder's input for each combination of levels, `[K, D]`."""
        del state
        return self._up(params, integers(self.codebook_options.levels))

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the decoder's input `[..., D]` of `indices` `[...]`."""
        return self.codes(params, state)[indices]

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return 0; there is no such term."""
        del z_e, step, temperature, axis_name, mask
        return jnp.zeros((), jnp.float32)

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Update F; everything else is learned by gradient."""
        del key
        latent = self.quantize(params, state, z_e)
        indices = latent.indices
        if mask is not None:
            indices = codebook.unassigned_where(~mask, indices, self.num_codes)
        counts = codebook.count_assignments(indices, self.num_codes, axis_name)
        frequency = codebook.update_frequency(state.frequency, counts, self.latent_options.frequency_decay)
        after = dataclasses.replace(state, frequency=frequency)
        return latent, Step(after, self.codes(params, state), latent.indices, counts, jnp.zeros((), bool))

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent; its value is taken from `codes`, so that decoding the indices gives the same bits."""
        levels = self.codebook_options.levels
        rounded = round_straight_through(bound(_linear(params["down"], z_e), levels))
        indices = to_indices(stop_gradient(rounded), levels)
        z_q = self.codes(params, state)[indices]
        return latents.plain_latent(z_e, z_q, indices, latents.straight_through(self._up(params, rounded), z_q))
