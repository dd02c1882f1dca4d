"""The options of the latent and of the codebook."""

import dataclasses
import math
from typing import Any, Literal

import jax

from hvq_jax.errors import ArgumentError
from hvq_jax.latents import (
    ESTIMATORS,
    LATENTS,
    NOISY_ESTIMATORS,
    PROJECTION_GRADIENTS,
    Estimator,
    Mode,
    ProjectionGradient,
    frequent_codes,
)
from hvq_jax.options import Options, option, refuse_unused
from hvq_jax.quantizers.assignment import ASSIGNMENTS, Assignment
from hvq_jax.quantizers.initialisation import INITIALISATIONS, Initialisation
from hvq_jax.quantizers.learning import LEARNING_RULES, Learning

QUANTIZERS: dict[str, Any] = {}  # by name; filled in `quantizers/__init__.py`, where the classes are known

Family = Literal["codebook", "residual", "grouped", "fsq", "residual_fsq", "lfq", "bsq"] | str  # or an import path

UNIT_NORMS = ("none", "codes", "both")
UnitNorm = Literal["none", "codes", "both"]
_MOST_CODES = 2**31 - 1  # indices are int32


@dataclasses.dataclass(frozen=True)
class LatentOptions(Options):
    """The latent that the decoder sees; see `latents.py`.

    >>> LatentOptions(mode="hybrid")
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: mode=hybrid: choose one of vq, projected, frequency, combined
    """

    mode: Mode = option("projected", "the latent the decoder sees", choices=LATENTS)
    num_codes: int = option(512, "K, number of codes per codebook", low=1)
    dim: int = option(64, "D, channels of the latent and of the codes", low=1)
    num_frequent: int = option(312, "S, number of frequent codes (latents with a mask)", low=0)
    frequent_mass: float | None = option(
        None, "m, replaces S: the most frequent codes up to this share of all assignments are frequent", low=0, high=1
    )
    frequency_decay: float = option(
        0.99, "decay of the frequency table F per step; 1: cumulative, 0: the latest batch only", low=0, high=1
    )
    projection_gradient: ProjectionGradient = option(
        "straight_through", "gradient of the projection P", choices=PROJECTION_GRADIENTS
    )
    projection_groups: int = option(
        1, "g, gains per position, one per group of D/g channels; must divide D, and g = D is z_e itself", low=1
    )
    estimator: Estimator = option("straight_through", "gradient of plain codes", choices=ESTIMATORS)
    direction_noise: float = option(
        1e-3, "variance of the noise, in training, on the direction from z_e to its code (estimator diveq)", low=0
    )

    def __post_init__(self) -> None:
        """Check the options, and that the groups divide the channels."""
        super().__post_init__()
        uses = {name: ("direction_noise",) if name in NOISY_ESTIMATORS else () for name in ESTIMATORS}
        refuse_unused(self, "estimator", uses[self.estimator], uses)
        if self.dim % self.projection_groups:
            raise ArgumentError(f"projection_groups={self.projection_groups}", f"must divide dim={self.dim}")

    def frequent_codes(self, frequency: jax.Array) -> jax.Array:
        """Return which codes are frequent, `[K]` bool, by the table `frequency` `[K]` and the rule of these options.

        >>> import jax.numpy as jnp
        >>> LatentOptions(num_frequent=1).frequent_codes(jnp.array([2.0, 5.0])).tolist()
        [False, True]
        """
        if self.frequent_mass is not None:
            return frequent_codes(frequency, frequent_mass=self.frequent_mass)
        return frequent_codes(frequency, num_frequent=self.num_frequent)


@dataclasses.dataclass(frozen=True)
class CodebookMethod(Options):
    """The quantizer, and how its codes are learned, but for where they start."""

    family: Family = option(
        "codebook",
        "quantizer: one codebook; for the latent vq also several, whose codes are summed (residual, ema) or are for a "
        "group of channels each (grouped); or none, but numbers rounded to `levels`, once (fsq) or `depth` times in "
        "finer steps (residual_fsq), or to `bits`, in space (lfq) or on the unit sphere (bsq)",
        choices=QUANTIZERS,
        importable=True,
    )
    learning: Learning = option(
        "ema",
        "how the codes are learned: moving averages of their vectors; by the gradient of the codebook loss; a learned "
        "linear map of frozen codes; or by the gradient of the decoder, with latent.estimator=diveq and latent vq "
        "(codebook, grouped)",
        choices=LEARNING_RULES,
        importable=True,
    )
    unit_norm: UnitNorm = option(
        "none",
        "what is normalised to length 1: nothing; the codes, whose length is left to the gain; or codes and encoder "
        "outputs (codebook, grouped)",
        choices=UNIT_NORMS,
    )
    decay: float = option(
        0.99, "decay of the moving averages per step (codebook, grouped with ema or diveq, residual)", low=0, high=1
    )
    revive_below: float = option(
        0.08,
        "codes assigned less often than this share of the mean, N/K for N latent positions per step, are moved onto "
        "encoder outputs; 0: never (codebook, grouped with ema or diveq, residual)",
        low=0,
        high=1,
    )
    assignment: Assignment = option(
        "euclidean",
        "rule that assigns codes: nearest vector, nearest direction, or, for the latent projected, nearest line of "
        "either sign (codebook, grouped)",
        choices=ASSIGNMENTS,
    )
    depth: int = option(
        1,
        "number of codebooks, or of roundings, K codes each, that are summed; at least 2 (residual, residual_fsq)",
        low=1,
        high=4,
    )
    levels: tuple[int, ...] = option((8, 8, 8), "levels of each number; K is their product (fsq, residual_fsq)")
    groups: int = option(2, "g, codes per position, one per group of D/g channels; must divide D (grouped)", low=1)
    share_codes: bool = option(False, "whether all groups use the same codebook instead of one each (grouped)")
    bits: int = option(9, "number of bits; K is 2 to their power (lfq, bsq)", low=1, high=30)

    def __post_init__(self) -> None:
        """Check the options, and that there are levels to round to."""
        super().__post_init__()
        if not self.levels or min(self.levels) < 2:
            raise ArgumentError(f"levels={self.levels}", "must be integers of at least 2, such as (8, 8, 8)")
        if math.prod(self.levels) > _MOST_CODES:
            raise ArgumentError(
                f"levels={self.levels}", f"their product is the number of codes and must be at most {_MOST_CODES}"
            )


@dataclasses.dataclass(frozen=True)
class CodebookOptions(CodebookMethod):
    """The quantizer, and how its codes are initialised and learned."""

    init: Initialisation = option(
        "data",
        "initial codes: encoder outputs of the first batches, the centres of their clusters, or random, from "
        "U(-1/K, 1/K), for simvq from N(0, 1/D) (codebook, residual, grouped)",
        choices=INITIALISATIONS,
    )
