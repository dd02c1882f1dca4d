"""Quantizers, which stand between encoder and decoder and all have the methods of `Quantizer`.

    CodebookQuantizer    every latent of `LATENTS` over one codebook          this module
    ResidualQuantizer    a sum of codes, one from each of several codebooks   `residual.py`
    GroupedQuantizer     codes side by side, one for each group of channels   `grouped.py`
    ScalarQuantizer      a few numbers, each rounded; no codebook             `scalar.py`
    ResidualScalarQuantizer    the same, and what rounding leaves is rounded in finer steps    `residual_scalar.py`
    LookupFreeQuantizer, SphericalQuantizer    a few bits; no codebook        `binary.py`

A quantizer is a hashable description. All methods are pure, and all arrays are arguments: `params` are learned by
gradient, and a training step updates `QuantizerState` without gradients. Positions where `mask` `[...]` is False are
padding: they get a latent, but are neither counted nor learned from, and no code is moved onto them.
"""

import dataclasses
import math
from functools import cached_property, partial
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

from hvq_jax import latents, registry
from hvq_jax.errors import ArgumentError
from hvq_jax.latents import CODE, HybridLatent
from hvq_jax.losses import entropy_term
from hvq_jax.options import field_names, refuse_unused
from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.assignment import code_costs, nearest_codes
from hvq_jax.quantizers.initialisation import INITIALISATIONS, codes_from_data
from hvq_jax.quantizers.learning import LEARNING_RULES, LearningRule
from hvq_jax.quantizers.options import CodebookOptions, LatentOptions

Params = Any

_NOISE = 1  # folded into the key of a step, for what is drawn besides revived codes


@struct.dataclass
class QuantizerState:
    """The arrays of a quantizer that are not learned by gradient."""

    frequency: jax.Array  # [K], or [depth, K], float32, the table F
    learned: Any = None  # state of the learning rule: moving averages, frozen codes, or nothing


@struct.dataclass
class Step:
    """The result of a training step besides its latent; reductions are over all devices."""

    state: QuantizerState  # after the batch
    codes: jax.Array  # [K, D], the code of each index in this step, differentiable in the parameters
    indices: jax.Array  # [...] int32
    counts: jax.Array  # [K] int32, assignments in this batch
    revived: jax.Array  # bool, which codes were moved onto encoder outputs
    numbers: jax.Array | None = None  # [..., d] float32, the image of z_e under a map, if that is what is quantized


class Quantizer(Protocol):
    """The methods of every quantizer. z_e is `[..., D]` float32; several codebooks are a leading axis before K."""

    option_names: ClassVar[tuple[str, ...]]  # the fields of CodebookOptions that it uses, besides `family`

    @property
    def num_codes(self) -> int:
        """The number of codes, K."""

    @property
    def has_codebook_loss(self) -> bool:
        """Whether the codebook term of the loss is part of the training loss."""

    @property
    def has_commitment_loss(self) -> bool:
        """Whether the commitment term of the loss is part of the training loss."""

    @property
    def has_entropy_loss(self) -> bool:
        """Whether the entropy term can be part of it."""

    @property
    def index_shape(self) -> tuple[int, ...]:
        """The shape of the indices of one position: (), or (L,) for L codes per position."""

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return fresh arrays."""

    @property
    def starts_from_data(self) -> bool:
        """Whether `start_from_data` has to be called before the first step."""

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Return the arrays with codes made from the first z_e; `key`, like the result, is equal on all devices."""

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return the z_e that all other methods and the losses take: float32, at length 1 where that is an option."""

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return the code of each index, `[K, D]`."""

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return z_q `[..., D]` of `indices` `[..., *index_shape]`."""

    def entropy(
        self, z_e: jax.Array, step: "Step", temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the entropy term of the loss, `losses.entropy_term`, if `has_entropy_loss`."""

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Train on a batch: revive dead codes; assign; update F; mask by it; update what the learning rule keeps."""

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent from the current codes and frequencies; update nothing."""


def require(choice: str, latent_options: LatentOptions, **needed: Any) -> None:
    """Raise ArgumentError for the first of the values `needed` by a choice that `latent_options` do not have.

    >>> require("codebook.family=fsq", LatentOptions(mode="projected"), mode="vq")
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: latent.mode=projected: codebook.family=fsq needs latent.mode=vq
    """
    for name, value in needed.items():
        if (given := getattr(latent_options, name)) != value:
            raise ArgumentError(f"latent.{name}={given}", f"{choice} needs latent.{name}={value}")


def estimator_noise(
    latent_options: LatentOptions, z_e: jax.Array, key: jax.Array, axis_name: str | None
) -> jax.Array | None:
    """Return the noise `[..., D]` of a training step on `z_e` for its estimator, or None if that uses none.

    >>> estimator_noise(LatentOptions(), jnp.ones((2, 3)), jax.random.key(0), None) is None
    True
    """
    if latent_options.estimator not in latents.NOISY_ESTIMATORS or not latent_options.direction_noise:
        return None
    noise = codebook.draw_noise(jax.random.fold_in(key, _NOISE), z_e.shape, axis_name)
    return math.sqrt(latent_options.direction_noise) * noise


def frozen_step(
    quantizer: Quantizer, params: Params, state: QuantizerState, z_e: jax.Array, axis_name: str | None
) -> tuple[HybridLatent, Step]:
    """Return what `Quantizer.step` does, of a quantizer that stays as it is: it gives gradients to z_e only.

    No code is revived, and codes, frequencies and masks are those of `state`, as in `Quantizer.quantize`.

    >>> quantizer = CodebookQuantizer(LatentOptions(num_codes=4, dim=2), CodebookOptions(init="uniform"))
    >>> params, state = jax.jit(quantizer.init)(jax.random.key(0))
    >>> _, step = frozen_step(quantizer, params, state, jnp.ones((3, 2)), None)
    >>> step.counts.sum().item(), step.revived.item()
    (3, False)
    """
    params, state = stop_gradient((params, state))
    latent = quantizer.quantize(params, state, z_e)
    count = partial(codebook.count_assignments, num_codes=quantizer.num_codes, axis_name=axis_name)
    counts = jax.vmap(count, -1)(latent.indices) if quantizer.index_shape else count(latent.indices)
    codes = quantizer.codes(params, state)
    return latent, Step(state, codes, latent.indices, counts, jnp.zeros((), bool), latent.numbers)


@dataclasses.dataclass(frozen=True)
class CodebookQuantizer:
    """A quantizer with one codebook, for every latent and learning rule.

    >>> quantizer = CodebookQuantizer(LatentOptions(num_codes=4, dim=2), CodebookOptions(init="uniform"))
    >>> params, state = quantizer.init(jax.random.key(0))
    >>> quantizer.quantize(params, state, jnp.ones((3, 2))).z_bar.shape
    (3, 2)
    """

    latent_options: LatentOptions
    codebook_options: CodebookOptions

    option_names: ClassVar[tuple[str, ...]] = ("learning", "unit_norm", "init", "decay", "revive_below", "assignment")
    has_entropy_loss: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check that the options are compatible; raise ArgumentError."""
        mode = self.latent_options.mode
        if self.codebook_options.assignment == "projection" and latents.find_latent(mode).uses(CODE):
            raise ArgumentError(
                "codebook.assignment=projection",
                f"chooses codes up to their sign, so latent.mode={mode}, which shows them to the decoder, "
                "cannot use it: choose projected",
            )
        # `rule` raises if it cannot be imported, or if an option was changed that it does not use.
        require(f"codebook.learning={self.codebook_options.learning}", self.latent_options, **self.rule.needs)

    @property
    def num_codes(self) -> int:
        """The number of codes, K."""
        return self.latent_options.num_codes

    @cached_property
    def rule(self) -> LearningRule:
        """The rule by which the codes are learned, constructed from the options that it has fields for."""
        options = self.codebook_options
        kind = registry.find("codebook.learning", options.learning, LEARNING_RULES, LearningRule)
        registered = {name: field_names(rule) for name, rule in LEARNING_RULES.items()}
        with registry.constructing("codebook.learning", options.learning):
            used = field_names(kind)
            refuse_unused(options, "learning", used, registered, section="codebook.")
            return kind(**{name: getattr(options, name) for name in used & field_names(options)})

    @property
    def has_codebook_loss(self) -> bool:
        """Whether the learning rule uses the codebook term of the loss."""
        return self.rule.has_codebook_loss

    @property
    def has_commitment_loss(self) -> bool:
        """Whether the learning rule uses the commitment term of the loss."""
        return self.rule.has_commitment_loss

    def init(self, key: jax.Array) -> tuple[Params, QuantizerState]:
        """Return random codes; the first step replaces all of them if they start from data and the rule revives."""
        codes = self.rule.random_codes(key, self.num_codes, self.latent_options.dim)
        params, learned = self.rule.init(codes, known=self.codebook_options.init != "data")
        return params, QuantizerState(jnp.zeros(self.num_codes, jnp.float32), learned)

    @property
    def starts_from_data(self) -> bool:
        """Whether codes must be initialised before step 0; False if the first revival does it."""
        by_revival = self.codebook_options.init == "data" and self.rule.revives
        return INITIALISATIONS[self.codebook_options.init] is not None and not by_revival

    def start_from_data(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Params, QuantizerState]:
        """Return codes initialised by `codebook.init`; a codebook of unit norm starts from directions."""
        codes = codes_from_data(
            latents.unit(z_e) if self._unit_norm else z_e,
            self.codes(params, state),
            key,
            iterations=INITIALISATIONS[self.codebook_options.init] or 0,
            axis_name=axis_name,
            mask=mask,
        )
        params, learned = self.rule.init(codes, known=True)
        return params, QuantizerState(state.frequency, learned)

    @property
    def _unit_norm(self) -> bool:
        return self.codebook_options.unit_norm != "none"

    @property
    def index_shape(self) -> tuple[int, ...]:
        """One code per position."""
        return ()

    def normalise(self, z_e: jax.Array) -> jax.Array:
        """Return z_e in float32, at length 1 where encoder outputs are normalised (Yu et al., arXiv:2110.04627)."""
        z_e = z_e.astype(jnp.float32)
        return latents.unit(z_e) if self.codebook_options.unit_norm == "both" else z_e

    def codes(self, params: Params, state: QuantizerState) -> jax.Array:
        """Return `[K, D]` float32, differentiable in `params`; directions for a codebook of unit norm."""
        codes = jnp.asarray(self.rule.codes(params, state.learned))  # of numpy, if the params or the state are
        return latents.unit(codes) if self._unit_norm else codes

    def vectors(self, params: Params, state: QuantizerState, indices: jax.Array) -> jax.Array:
        """Return the codes `[..., D]` of `indices` `[...]`."""
        return self.codes(params, state)[indices]

    def entropy(
        self, z_e: jax.Array, step: Step, temperature: float, axis_name: str | None, mask: jax.Array | None = None
    ) -> jax.Array:
        """Return the entropy term of the costs by which codes are assigned."""
        costs = code_costs(z_e, step.codes, self.codebook_options.assignment)
        return entropy_term(costs, temperature, axis_name, mask)

    def learn(
        self,
        params: Params,
        state: QuantizerState,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> Step:
        """Revive dead codes; assign the constant `vectors` `[..., D]`; update F; update what the rule keeps."""
        step = self._learn(params, state, vectors, key, axis_name, mask)
        if mask is None:
            return step
        # A batch that is all padding is no step.
        seen = codebook.anywhere(mask, axis_name)
        after = jax.tree.map(lambda new, old: jnp.where(seen, new, old), step.state, state)
        return dataclasses.replace(step, state=after)

    def _learn(
        self,
        params: Params,
        state: QuantizerState,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None,
    ) -> Step:
        learned, frequency, revived = self.rule.revive(
            params, state.learned, state.frequency, vectors, key, axis_name, mask
        )
        codes = self.codes(params, QuantizerState(frequency, learned))
        indices = nearest_codes(vectors, stop_gradient(codes), self.codebook_options.assignment)
        learned_from = indices if mask is None else codebook.unassigned_where(~mask, indices, self.num_codes)
        counts = codebook.count_assignments(learned_from, self.num_codes, axis_name)
        frequency = codebook.update_frequency(frequency, counts, self.latent_options.frequency_decay)
        if self.codebook_options.assignment == "projection":
            vectors = codebook.facing(vectors, stop_gradient(codes)[indices])
        learned = self.rule.update(learned, vectors, learned_from, counts, axis_name)
        return Step(QuantizerState(frequency, learned), codes, indices, counts, revived)

    def step(
        self,
        params: Params,
        state: QuantizerState,
        z_e: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[HybridLatent, Step]:
        """Train on a batch: the latent uses the updated F, but the codes before the averages are updated."""
        step = self.learn(params, state, stop_gradient(z_e), key, axis_name, mask)
        noise = estimator_noise(self.latent_options, z_e, key, axis_name)
        return self._latent(z_e, step.codes, step.indices, step.state.frequency, noise), step

    def quantize(self, params: Params, state: QuantizerState, z_e: jax.Array) -> HybridLatent:
        """Return the latent from the current codes and frequencies; update nothing."""
        codes = self.codes(params, state)
        return self._latent(z_e, codes, nearest_codes(z_e, codes, self.codebook_options.assignment), state.frequency)

    def _latent(
        self,
        z_e: jax.Array,
        codes: jax.Array,
        indices: jax.Array,
        frequency: jax.Array,
        noise: jax.Array | None = None,
    ) -> HybridLatent:
        return latents.hybrid_latent(
            z_e,
            codes,
            indices,
            self.latent_options.frequent_codes(frequency),
            mode=self.latent_options.mode,
            projection_gradient=self.latent_options.projection_gradient,
            projection_groups=self.latent_options.projection_groups,
            estimator=self.latent_options.estimator,
            noise=noise,
        )
