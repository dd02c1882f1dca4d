"""Learning rules for the codes of a codebook, all with the same methods.

    ema         moving averages of the assigned vectors, revived when they die (van den Oord et al., 2017, appendix A.1)
    gradient    parameters, moved by the codebook term of the loss (van den Oord et al., 2017, arXiv:1711.00937)
    simvq       a learned linear map of frozen codes, so that every gradient moves all codes (Zhu et al., 2024,
                arXiv:2411.02038)
    diveq       parameters, moved by the gradient of the decoder through the estimator of that name, and revived when
                they die (Vali et al., 2025, arXiv:2509.26469)

A rule is hashable and holds no arrays. Its `params` are learned by gradient; a step updates its `state` without
gradients.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from flax import struct
from jax.lax import stop_gradient

from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.codebook import MovingAverages


@dataclasses.dataclass(frozen=True)
class LearningRule:
    """The rule `gradient`, in which codes are parameters, and the base class of the others.

    A rule that uses options has a field for each, with the name that it has in `CodebookOptions`.

    >>> params, state = LearningRule().init(jnp.eye(2), known=True)
    >>> params["codes"].tolist(), state
    ([[1.0, 0.0], [0.0, 1.0]], None)
    """

    has_codebook_loss: ClassVar[bool] = True  # whether the codebook term of the loss moves the codes
    has_commitment_loss: ClassVar[bool] = True  # whether the commitment term holds encoder outputs to the codes
    needs: ClassVar[Mapping[str, str]] = {}  # values of LatentOptions without which the codes do not learn
    revives: ClassVar[bool] = False  # whether dead codes are moved onto encoder outputs, in the first step all of them

    def random_codes(self, key: jax.Array, num_codes: int, dim: int) -> jax.Array:
        """Return initial codes `[K, D]` that do not depend on the data."""
        return codebook.uniform_codes(key, num_codes, dim)

    def init(self, codes: jax.Array, *, known: bool) -> tuple[Any, Any]:
        """Return params and state for `codes` `[K, D]`; unless they are `known`, the first step revives all of them."""
        del known
        return {"codes": codes}, None

    def codes(self, params: Any, state: Any) -> jax.Array:
        """Return the codes `[K, D]` float32, differentiable in `params`."""
        del state
        return params["codes"]

    def revive(
        self,
        params: Any,
        state: Any,
        frequency: jax.Array,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Any, jax.Array, jax.Array]:
        """Return the state, F `[K]` and which codes were revived, bool, before `vectors` `[..., D]` are assigned.

        Where `mask` `[...]` is False, vectors are padding and must not become codes.
        """
        del params, vectors, key, axis_name, mask
        return state, frequency, jnp.zeros((), bool)

    def update(
        self, state: Any, vectors: jax.Array, indices: jax.Array, counts: jax.Array, axis_name: str | None
    ) -> Any:
        """Return the state after `vectors` `[..., D]` were assigned `indices` `[...]`, `counts` `[K]` times each.

        The index of padding is K, which is no code.
        """
        del vectors, indices, counts, axis_name
        return state


@dataclasses.dataclass(frozen=True)
class MovingAverageRule(LearningRule):
    """Codes that are moving averages; the state is `MovingAverages`, and there are no parameters."""

    decay: float = 0.99  # of the averages, per step
    revive_below: float = 0.08  # share of the mean count under which a code is dead; 0: none is

    has_codebook_loss: ClassVar[bool] = False  # the update takes its place
    revives: ClassVar[bool] = True

    def init(self, codes: jax.Array, *, known: bool) -> tuple[Any, Any]:
        """Return averages of `codes`; known codes start with counts high enough that none is dead at first."""
        first_count = codebook.first_count(self.revive_below)
        return {}, codebook.assigned(codes, first_count) if known else codebook.unassigned(codes)

    def codes(self, params: Any, state: MovingAverages) -> jax.Array:
        """Return the current averages."""
        del params
        return state.codes

    def revive(
        self,
        params: Any,
        state: MovingAverages,
        frequency: jax.Array,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[MovingAverages, jax.Array, jax.Array]:
        """Move dead codes onto encoder outputs."""
        del params
        return codebook.revive(state, frequency, vectors, key, below=self.revive_below, axis_name=axis_name, mask=mask)

    def update(
        self, state: MovingAverages, vectors: jax.Array, indices: jax.Array, counts: jax.Array, axis_name: str | None
    ) -> MovingAverages:
        """Update the averages."""
        return codebook.update_averages(state, vectors, indices, counts, decay=self.decay, axis_name=axis_name)


@dataclasses.dataclass(frozen=True)
class SimVQ(LearningRule):
    """Codes C W: the frozen codes C `[K, D]` are the state, the map W `[D, D]`, at first the identity, a parameter.

    Every gradient moves W and with it all codes, used or not, so that codes do not die for lack of a gradient.
    """

    def random_codes(self, key: jax.Array, num_codes: int, dim: int) -> jax.Array:
        """Return codes from N(0, 1/D), whose lengths are about 1."""
        return jax.random.normal(key, (num_codes, dim), jnp.float32) / math.sqrt(dim)

    def init(self, codes: jax.Array, *, known: bool) -> tuple[Any, Any]:
        """Return the identity map as params, and the frozen codes as state."""
        del known
        return {"map": jnp.eye(codes.shape[-1], dtype=jnp.float32)}, codes

    def codes(self, params: Any, state: jax.Array) -> jax.Array:
        """Return C W."""
        return jnp.matmul(state, params["map"], precision=jax.lax.Precision.HIGHEST)


@struct.dataclass
class Revived:
    """What moves codes besides gradients, and what they are moved by."""

    offset: jax.Array  # [K, D] float32, from the parameters to the codes
    counts: jax.Array  # [K] float32, moving average of the assignments per step, in units of their mean


@dataclasses.dataclass(frozen=True)
class DiVeQ(LearningRule):
    """Codes that are parameters, without auxiliary losses; the state is `Revived`.

    The paper moves unused codes next to codes in use, drawn by their frequency; here they are moved onto encoder
    outputs, like those of `ema`, which are as frequent around these codes. Parameters change by gradient only, so a
    move is kept as an offset.
    """

    decay: float = 0.99  # of the counts, per step
    revive_below: float = 0.08  # share of the mean count under which a code is dead; 0: none is

    has_codebook_loss: ClassVar[bool] = False
    has_commitment_loss: ClassVar[bool] = False
    needs: ClassVar[Mapping[str, str]] = {"mode": "vq", "estimator": "diveq"}
    revives: ClassVar[bool] = True

    def init(self, codes: jax.Array, *, known: bool) -> tuple[Any, Any]:
        """Return `codes` as parameters; unless they are known, all are dead at first."""
        count = codebook.first_count(self.revive_below) if known else -1.0
        return {"codes": codes}, Revived(jnp.zeros_like(codes), jnp.full(len(codes), count, jnp.float32))

    def codes(self, params: Any, state: Revived) -> jax.Array:
        """Return the parameters, moved."""
        codes: jax.Array = params["codes"] + state.offset
        return codes

    def revive(
        self,
        params: Any,
        state: Revived,
        frequency: jax.Array,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[Revived, jax.Array, jax.Array]:
        """Move dead codes onto encoder outputs."""
        codes = stop_gradient(self.codes(params, state))
        averages = MovingAverages(codes, state.counts, jnp.zeros_like(codes))
        averages, frequency, dead = codebook.revive(
            averages, frequency, vectors, key, below=self.revive_below, axis_name=axis_name, mask=mask
        )
        moved = jnp.where(dead[:, None], averages.codes - stop_gradient(params["codes"]), state.offset)
        return Revived(moved, averages.counts), frequency, dead

    def update(
        self, state: Revived, vectors: jax.Array, indices: jax.Array, counts: jax.Array, axis_name: str | None
    ) -> Revived:
        """Update the counts."""
        del vectors, indices, axis_name
        return Revived(state.offset, codebook.average_counts(state.counts, counts, self.decay))


LEARNING_RULES: dict[str, type[LearningRule]] = {
    "ema": MovingAverageRule,
    "gradient": LearningRule,
    "simvq": SimVQ,
    "diveq": DiVeQ,
}
Learning = Literal["ema", "gradient", "simvq", "diveq"] | str  # or an import path
