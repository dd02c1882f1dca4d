"""Finite scalar quantization: z_e becomes a few numbers, each bounded and rounded to one of its levels; no codebook.

Mentzer et al., 2023 (arXiv:2309.15505). The K = Π levels combinations are numbered, so that a prior over codes serves
here too. Learned linear maps lead from the D channels of z_e to the d numbers and back to the D of the decoder.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient

from hvq_jax import codebook, latents
from hvq_jax.bottleneck import CodebookOptions, CodebookState, LatentOptions, Learned
from hvq_jax.latents import HybridLatent

_MARGIN = 1e-3  # keeps whatever tanh gives from rounding to one level more

Levels = tuple[int, ...]


def bound(numbers: jax.Array, levels: Levels) -> jax.Array:
    """`[..., d]`, each of which rounds to one of so many whole numbers as its level says, from −⌊level/2⌋ on.

    An even number of levels lies half a number lower, and what comes in is moved so that numbers about 0 stay there
    (the paper's appendix A.1).
    """
    sizes = jnp.array(levels, jnp.float32)
    half = (sizes - 1) * (1 - _MARGIN) / 2
    offset = jnp.where(sizes % 2 == 0, 0.5, 0.0)
    return half * jnp.tanh(numbers + jnp.tan(offset / half)) - offset


def indices_of(whole: jax.Array, levels: Levels) -> jax.Array:
    """Indices `[...]` int32, in 0 … K − 1, of whole numbers `[..., d]`; the first of them changes fastest."""
    digits = whole.astype(jnp.int32) + _halves(levels)
    return jnp.sum(digits * jnp.array(_factors(levels)), axis=-1, dtype=jnp.int32)


def whole_numbers(levels: Levels) -> jax.Array:
    """`[K, d]` float32, those of every index: inverse to `indices_of`."""
    indices = jnp.arange(math.prod(levels))[:, None]
    digits = indices // jnp.array(_factors(levels)) % jnp.array(levels)
    return (digits - _halves(levels)).astype(jnp.float32)


def _factors(levels: Levels) -> list[int]:
    return [math.prod(levels[:i]) for i in range(len(levels))]


def _halves(levels: Levels) -> jax.Array:
    return jnp.array([level // 2 for level in levels])


def round_straight_through(numbers: jax.Array) -> jax.Array:
    """Rounded in the forward pass, exactly; the gradient passes as it is."""
    return latents.straight_through(numbers, jnp.round(numbers))


def _linear(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"]


@dataclasses.dataclass(frozen=True)
class ScalarBottleneck:
    """The latent `vq` with the codes up(rounded numbers), `[K, D]`; `params` hold the maps "down" and "up"."""

    latent: LatentOptions
    codebook: CodebookOptions

    def __post_init__(self) -> None:
        if (num_codes := math.prod(self.codebook.levels)) != self.latent.num_codes:
            raise ValueError(f"levels {self.codebook.levels} make {num_codes} codes, not {self.latent.num_codes}")

    def init(self, key: jax.Array) -> CodebookState:
        """Xavier-uniform maps with zero bias, as everywhere in the networks."""
        dim, size = self.latent.dim, len(self.codebook.levels)
        kernel = jax.nn.initializers.xavier_uniform()
        down, up = jax.random.split(key)
        params: dict[str, Any] = {
            "down": {"kernel": kernel(down, (dim, size)), "bias": jnp.zeros(size)},
            "up": {"kernel": kernel(up, (size, dim)), "bias": jnp.zeros(dim)},
        }
        return CodebookState(params, jnp.zeros(self.latent.num_codes), None)

    @property
    def starts_from_data(self) -> bool:
        """Never: there is no codebook."""
        return False

    def start_from_data(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> CodebookState:
        """The state as it is."""
        del z_e, key, axis_name
        return state

    def _up(self, state: CodebookState, whole: jax.Array) -> jax.Array:
        """`[..., D]` for the decoder; each number is scaled to [-1, 1] first."""
        return _linear(state.params["up"], whole / _halves(self.codebook.levels))

    def codes(self, state: CodebookState) -> jax.Array:
        """`[K, D]`: what the decoder sees of each combination of levels."""
        return self._up(state, whole_numbers(self.codebook.levels))

    def train(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> tuple[HybridLatent, Learned]:
        """Nothing is learned but by the gradient; F is kept as everywhere."""
        del key
        latent = self.quantize(state, z_e)
        counts = codebook.count_assignments(latent.indices, self.latent.num_codes, axis_name)
        frequency = codebook.update_frequency(state.frequency, counts, self.latent.frequency_decay)
        after = dataclasses.replace(state, frequency=frequency)
        return latent, Learned(after, self.codes(state), latent.indices, counts, jnp.zeros((), bool))

    def quantize(self, state: CodebookState, z_e: jax.Array) -> HybridLatent:
        """The value is taken from `codes`, so that decoding the indices gives the same, bit for bit."""
        levels = self.codebook.levels
        rounded = round_straight_through(bound(_linear(state.params["down"], z_e), levels))
        indices = indices_of(stop_gradient(rounded), levels)
        z_q = self.codes(state)[indices]
        return latents.plain_latent(z_e, z_q, indices, latents.straight_through(self._up(state, rounded), z_q))
