"""A prior evaluated position by position, in programs compiled once per batch size."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np

from hvq_jax.codec.float64 import in_float64, widened
from hvq_jax.codec.mixtures import Mixture
from hvq_jax.errors import UserError
from hvq_jax.priors.heads import GainHead, ResidualHead
from hvq_jax.priors.prior import Prior


class Steps:
    """The prior's distribution at each position in turn, given what was coded before.

    Encoder and decoder call the same programs with the same arguments in the same order: in one environment, that
    gives the same bits.
    """

    def __init__(self, prior: Prior, variables: Any, has_continuous: jax.Array | None, *, wide: bool) -> None:
        """Prepare the programs.

        Args:
            prior: the model.
            variables: {"params": ...} of it.
            has_continuous: as in a call of the prior.
            wide: compute in float64, whatever the prior computes in.
        """
        self._prior, self._wide = prior, wide
        self._variables = widened(variables) if wide else variables
        self._has_continuous = None if has_continuous is None else np.asarray(has_continuous)
        self._compile: Callable[[Callable[..., Any]], Callable[..., Any]] = in_float64 if wide else jax.jit
        self._programs: dict[Any, Callable[..., Any]] = {}
        for head in prior.heads:
            if not isinstance(head, GainHead | ResidualHead):
                raise UserError(f"there is no codec for the prior's head {type(head).__name__}")

    def _call(self, method: Any, *arguments: Any) -> Any:
        """Call a method of the prior, or a function of the bound prior, in its compiled form."""
        if method not in self._programs:
            self._programs[method] = self._compile(
                lambda variables, *rest: self._prior.apply(variables, *rest, method=method)
            )
        with jax.default_matmul_precision("highest"):
            return self._programs[method](self._variables, *arguments)

    def has_part(self, head: int, codes: np.ndarray) -> np.ndarray:
        """Return where `codes` `[n]` have the part of that head, `[n]` bool."""
        assert self._has_continuous is not None
        return self._has_continuous[head][codes]

    def blank(self, batch: int, height: int, width: int) -> Any:
        """Return the memory before the first row."""
        memory = self._prior.network.blank_memory(batch, height, width)
        return widened(memory) if self._wide else memory

    def begin_row(self, memory: Any, labels: np.ndarray | None) -> Any:
        """Return the memory at the beginning of the next row."""
        return self._call("begin_row", memory, labels)

    def next_features(self, memory: Any, column: int) -> tuple[Any, jax.Array]:
        """Return the memory, and the features `[B, width]` of the next position."""
        return self._call("next_features", memory, np.asarray(column, np.int32))

    def code_logits(self, context: jax.Array, level: int) -> np.ndarray:
        """Return the logits `[B, K]` of a position's code `level`, given the `context` `[B, width]` of it."""
        return np.asarray(self._call(_code_logits(level), context))

    def next_context(self, context: jax.Array, codes: np.ndarray, level: int) -> jax.Array:
        """Return the context `[B, width]` of the code after the `codes` `[B]` int32 of `level`."""
        result: jax.Array = self._call(_next_context(level), context, codes)
        return result

    def bin_logits(self, head: int, features: jax.Array, codes: np.ndarray, bins: np.ndarray, group: int) -> np.ndarray:
        """Return the logits `[B, G]` of the bin of a group, given those before it in `bins` `[B, g]` int32."""
        return np.asarray(self._call(_bin_logits(head), features, codes, bins))[:, group]

    def mixture(self, head: int, features: jax.Array, codes: np.ndarray) -> Mixture:
        """Return the mixture of the residuals of codes `[B]`."""
        logits, means, scales = map(np.asarray, self._call(_components(head), features, codes))
        step = self._prior.heads[head].step
        return Mixture(*(x.astype(np.float64) for x in (logits, means / step, scales / step)))

    def remember(self, memory: Any, tokens: np.ndarray, column: int) -> Any:
        """Return the memory with that position's tokens, `[B, channels]` int32."""
        return self._call("remember", memory, tokens, self._has_continuous, np.asarray(column, np.int32))


@cache
def _code_logits(level: int) -> Callable[..., jax.Array]:
    """Return a function of a bound prior and the context of `Prior.code_logits`; the same for the same level."""
    return lambda prior, context: prior.code_logits(context, level)


@cache
def _next_context(level: int) -> Callable[..., jax.Array]:
    """Return a function of a bound prior and the arguments of `Prior.next_context`; the same for the same level."""
    return lambda prior, context, codes: prior.next_context(context, codes, level)


@cache
def _bin_logits(number: int) -> Callable[..., jax.Array]:
    """Return a function of a bound prior and the arguments of `GainHead.bin_logits`; the same for the same head."""
    return lambda prior, *arguments: prior.heads[number].bin_logits(*arguments)


@cache
def _components(number: int) -> Callable[..., Any]:
    """Return a function of a bound prior and the arguments of `ResidualHead.components`; the same for the same head."""
    return lambda prior, *arguments: prior.heads[number].components(*arguments)
