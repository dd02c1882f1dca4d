"""Learning rules for the codes of a codebook, all with the same methods.

    ema         moving averages of the assigned vectors, revived when they die (van den Oord et al., 2017, appendix A.1)
    gradient    parameters, moved by the codebook term of the loss (van den Oord et al., 2017, arXiv:1711.00937)
    simvq       a learned linear map of frozen codes, so that every gradient moves all codes (Zhu et al., 2024,
                arXiv:2411.02038)

A rule is hashable and holds no arrays. Its `params` are learned by gradient; a step updates its `state` without
gradients.
"""

import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

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
        del vectors, key, axis_name, mask
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
        state: MovingAverages,
        frequency: jax.Array,
        vectors: jax.Array,
        key: jax.Array,
        axis_name: str | None,
        mask: jax.Array | None = None,
    ) -> tuple[MovingAverages, jax.Array, jax.Array]:
        """Move dead codes onto encoder outputs."""
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


LEARNING_RULES: dict[str, type[LearningRule]] = {"ema": MovingAverageRule, "gradient": LearningRule, "simvq": SimVQ}
Learning = Literal["ema", "gradient", "simvq"] | str  # or an import path
