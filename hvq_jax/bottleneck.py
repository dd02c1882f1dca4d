"""What stands between encoder and decoder, as one of a few strategies with the same functions (`Bottleneck`).

    CodebookBottleneck    the four latents over one codebook                     here
    ResidualBottleneck    a sum of codes, one from each of several codebooks     `residual.py`
    ScalarBottleneck      a few numbers, each rounded; no codebook               `scalar_quantization.py`

`autoencoder.py` chooses one. Each is a description that can be hashed; all functions are pure, and all arrays are
arguments: `params` are learned by gradient, `frequency` is the table F, `averages` the codes learned otherwise.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

from hvq_jax import codebook, latents
from hvq_jax.assignment import nearest_codes
from hvq_jax.codebook import MovingAverages
from hvq_jax.initialisation import INITIALISATIONS, codes_from_data
from hvq_jax.latents import HybridLatent

# How codes are learned:
#   gradient     as parameters, by the codebook term of the loss (van den Oord et al., 2017, arXiv:1711.00937)
#   ema          as moving averages of their vectors (the same, appendix A.1), revived when they die
#   spherical    the same, then put on the unit sphere: a code is a direction, its length is left to the gain
#                (spherical k-means, Dhillon and Modha, 2001; shape-gain quantization, Sabin and Gray, 1984)
#   fsq          not at all: finite scalar quantization (`scalar_quantization.py`)
METHODS = ("gradient", "ema", "spherical", "fsq")


@dataclasses.dataclass(frozen=True)
class LatentOptions:
    """Which latent the decoder sees; see `latents.py`."""

    mode: str = "projected"
    num_codes: int = 512  # K
    dim: int = 64  # D, also the hidden width of both networks
    num_frequent: int = 312  # S, unused while frequent_mass is given
    frequent_mass: float | None = None
    frequency_decay: float = 0.99
    projection_gradient: str = "straight_through"
    projection_groups: int = 1  # g, gains a position; a divisor of D
    estimator: str = "straight_through"  # the gradient of plain codes


@dataclasses.dataclass(frozen=True)
class CodebookOptions:
    """How the codes are learned; see `codebook.py`."""

    method: str = "ema"  # one of METHODS
    init: str = "data"  # "uniform": U(-1/K, 1/K); "data", "kmeans": see `initialisation.py`
    decay: float = 0.99
    revive_below: float = 1.0  # assignments a step (moving average); 0 revives none
    assignment: str = "euclidean"  # see `assignment.py`
    normalize: bool = False  # codes and encoder outputs on the unit sphere
    depth: int = 1  # codebooks, more than one for residual quantization
    levels: tuple[int, ...] = (8, 8, 8)  # of finite scalar quantization


@struct.dataclass
class CodebookState:
    """All arrays of a bottleneck."""

    params: dict[str, Any]  # learned by gradient: "codebook" [K, D], or nothing, or the projections of scalars
    frequency: jax.Array  # [K] float32, the table F
    averages: MovingAverages | None  # the codes, where they are learned by moving averages


@struct.dataclass
class Learned:
    """What a training step makes of a batch, beside its latent; reductions are over all devices."""

    state: CodebookState  # after the batch
    codes: jax.Array  # [K, D], what the indices stand for in this step, differentiable in the parameters
    indices: jax.Array  # [...] int32
    counts: jax.Array  # [K] int32, assignments in this batch
    revived: jax.Array  # bool, which codes were put onto encoder outputs


class Bottleneck(Protocol):
    """What every strategy can do. z_e is `[..., D]` float32; several codebooks are a leading axis before K."""

    def init(self, key: jax.Array) -> CodebookState:
        """Fresh arrays."""

    @property
    def starts_from_data(self) -> bool:
        """Whether `start_from_data` has to be called before the first step."""

    def start_from_data(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> CodebookState:
        """The state with codes made from the first z_e; `key` is equal on all devices, and so is the result."""

    def codes(self, state: CodebookState) -> jax.Array:
        """What the indices stand for, `[K, D]`."""

    def train(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> tuple[HybridLatent, Learned]:
        """One step on a batch: revive dead codes; assign; update F; mask by it; move the averages."""

    def quantize(self, state: CodebookState, z_e: jax.Array) -> HybridLatent:
        """The latent by everything as it stands."""


def frequent(options: LatentOptions, frequency: jax.Array) -> jax.Array:
    """Which codes are frequent, `[K]` bool, by the table `frequency` `[K]` and the rule of `options` (S or mass)."""
    if options.frequent_mass is not None:
        return latents.frequent_codes(frequency, frequent_mass=options.frequent_mass)
    return latents.frequent_codes(frequency, num_frequent=options.num_frequent)


@dataclasses.dataclass(frozen=True)
class CodebookBottleneck:
    """The four latents over one codebook, learned in any way but "fsq"."""

    latent: LatentOptions
    codebook: CodebookOptions

    def init(self, key: jax.Array) -> CodebookState:
        """Codes in `params` or in the averages; from data, without a gradient, they are revived in the first step."""
        codes = codebook.uniform_codes(key, self.latent.num_codes, self.latent.dim)
        frequency = jnp.zeros(self.latent.num_codes)
        if self.codebook.method == "gradient":
            return CodebookState({"codebook": codes}, frequency, None)
        start = codebook.unassigned if self.codebook.init == "data" else codebook.assigned_once
        return CodebookState({}, frequency, start(codes))

    @property
    def starts_from_data(self) -> bool:
        """True for what the first revival does not do."""
        by_revival = self.codebook.init == "data" and self.codebook.method != "gradient"
        return INITIALISATIONS[self.codebook.init] is not None and not by_revival

    def start_from_data(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> CodebookState:
        """Codes as `codebook.init` says; a codebook of unit norm starts from directions."""
        codes = codes_from_data(
            latents.unit(z_e) if self._unit_norm else z_e,
            self.codes(state),
            key,
            iterations=INITIALISATIONS[self.codebook.init] or 0,
            axis_name=axis_name,
        )
        if state.averages is None:
            return dataclasses.replace(state, params={"codebook": codes})
        # So that none of them is dead before it has been seen.
        averages = codebook.assigned(codes, max(self.codebook.revive_below, 1.0))
        return dataclasses.replace(state, averages=averages)

    @property
    def _unit_norm(self) -> bool:
        return self.codebook.normalize or self.codebook.method == "spherical"

    def codes(self, state: CodebookState) -> jax.Array:
        """`[K, D]` float32, wherever they are kept; the directions of what is kept for a codebook of unit norm."""
        kept = state.params["codebook"] if state.averages is None else state.averages.codes
        return latents.unit(kept) if self._unit_norm else kept

    def learn(self, state: CodebookState, vectors: jax.Array, key: jax.Array, axis_name: str | None) -> Learned:
        """Revive dead codes; assign the constant `vectors` `[..., D]`; update F; move the averages."""
        averages, frequency, revived = state.averages, state.frequency, jnp.zeros((), bool)
        if averages is not None:
            averages, frequency, revived = codebook.revive(
                averages, frequency, vectors, key, below=self.codebook.revive_below, axis_name=axis_name
            )
        codes = self.codes(dataclasses.replace(state, averages=averages))
        indices = nearest_codes(vectors, stop_gradient(codes), self.codebook.assignment)
        counts = codebook.count_assignments(indices, self.latent.num_codes, axis_name)
        frequency = codebook.update_frequency(frequency, counts, self.latent.frequency_decay)
        if averages is not None:
            if self.codebook.assignment == "projection":
                vectors = codebook.facing(vectors, codes[indices])
            averages = codebook.update_averages(
                averages, vectors, indices, counts, decay=self.codebook.decay, axis_name=axis_name
            )
        return Learned(CodebookState(state.params, frequency, averages), codes, indices, counts, revived)

    def train(
        self, state: CodebookState, z_e: jax.Array, key: jax.Array, axis_name: str | None
    ) -> tuple[HybridLatent, Learned]:
        """The latent sees F after this batch, and the codes before the averages have moved."""
        learned = self.learn(state, stop_gradient(z_e), key, axis_name)
        return self._latent(z_e, learned.codes, learned.indices, learned.state.frequency), learned

    def quantize(self, state: CodebookState, z_e: jax.Array) -> HybridLatent:
        """The latent by codes and frequencies as they stand."""
        codes = self.codes(state)
        return self._latent(z_e, codes, nearest_codes(z_e, codes, self.codebook.assignment), state.frequency)

    def _latent(self, z_e: jax.Array, codes: jax.Array, indices: jax.Array, frequency: jax.Array) -> HybridLatent:
        return latents.hybrid_latent(
            z_e,
            codes,
            indices,
            frequent(self.latent, frequency),
            mode=self.latent.mode,
            projection_gradient=self.latent.projection_gradient,
            projection_groups=self.latent.projection_groups,
            estimator=self.latent.estimator,
        )
