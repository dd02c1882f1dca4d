"""Blocks of latents as streams of bytes, under a prior."""

import dataclasses
from functools import cached_property
from typing import Any

import jax
import numpy as np

from hvq_jax.codec.decisions import DecisionReader, Decisions, DecisionWriter, Grid
from hvq_jax.codec.mixtures import MOST_DIGITS, code_residuals, num_digits
from hvq_jax.codec.range_coder import DamagedStreamError
from hvq_jax.codec.steps import Steps
from hvq_jax.codec.symbols import code_symbols
from hvq_jax.priors.heads import GainHead
from hvq_jax.priors.labels import NO_CLASS
from hvq_jax.priors.prior import Prior

_EXACT = Grid()
# Much more than the logs of ratios differ by in float64: see `tests/codec/test_portable.py`.
_PORTABLE = Grid(tolerance=1e-9)
_PORTABLE_RESIDUALS = Grid(steps_per_unit=16, tolerance=1e-6)


@dataclasses.dataclass(frozen=True)
class Block:
    """Some latents as a stream."""

    stream: bytes
    digits: int | None = None  # of residuals, where the prior has them; see `mixtures.py`


@dataclasses.dataclass(frozen=True)
class LatentCodec:
    """A codec of tokens `[n, h, w, channels]` int32 under a prior.

    Args:
        prior: the model.
        variables: {"params": ...} of it.
        height: h.
        width: w.
        has_continuous: as in a call of the prior.
        with_labels: whether labels are part of the stream; else there is no class.
        portable: compute in float64 and mark what may still round differently on another machine.
    """

    prior: Prior
    variables: Any = dataclasses.field(repr=False)
    height: int
    width: int
    has_continuous: jax.Array | None = None
    with_labels: bool = False
    portable: bool = False

    @cached_property
    def _steps(self) -> Steps:
        return Steps(self.prior, self.variables, self.has_continuous, wide=self.portable)

    @property
    def has_residuals(self) -> bool:
        """Whether blocks state the number of digits of their residuals."""
        return any(not isinstance(head, GainHead) for head in self.prior.heads)

    @property
    def _grid(self) -> Grid:
        if not self.portable:
            return _EXACT
        return _PORTABLE_RESIDUALS if self.has_residuals else _PORTABLE

    def encode(self, tokens: np.ndarray, labels: np.ndarray, batch: int) -> Block:
        """Return the block of `tokens` `[n, h, w, channels]` and `labels` `[n]`; n at most `batch`."""
        digits = None
        if self.has_residuals:
            digits = num_digits(tokens[..., self._first_residual :])
        writer = DecisionWriter(self._grid)
        self._code(writer, len(tokens), batch, digits, tokens, labels)
        return Block(writer.finish(), digits)

    def decode(self, block: Block, count: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the tokens and labels of a block of `count` latents, encoded with the same `batch`.

        Raises DamagedStreamError where the stream is one that no encoder wrote; not every damage shows.
        """
        if block.digits is not None and block.digits > MOST_DIGITS:
            raise DamagedStreamError("its residuals have more digits than there are")
        return self._code(DecisionReader(block.stream, self._grid), count, batch, block.digits, None, None)

    @property
    def _first_residual(self) -> int:
        return self.prior.num_channels - sum(h.channels for h in self.prior.heads if not isinstance(h, GainHead))

    def _code(
        self,
        decisions: Decisions,
        count: int,
        batch: int,
        digits: int | None,
        tokens: np.ndarray | None,
        labels: np.ndarray | None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Code `count` latents, those given or those in the stream; return their tokens and labels."""
        padded_labels = np.full(batch, NO_CLASS, np.int32)
        if self.with_labels:
            padded_labels[:count] = self._code_labels(decisions, count, labels)
        condition = padded_labels if self.prior.num_classes else None
        coded = np.zeros((batch, self.height, self.width, self.prior.num_channels), np.int32)
        memory = self._steps.blank(batch, self.height, self.width)
        for row in range(self.height):
            memory = self._steps.begin_row(memory, condition)
            for column in range(self.width):
                memory, features = self._steps.next_features(memory, column)
                given = None if tokens is None else tokens[:, row, column]
                here = coded[:, row, column]
                self._code_codes(decisions, features, here, count, given)
                self._code_continuous(decisions, features, here, count, digits, given)
                memory = self._steps.remember(memory, here, column)
        return coded[:count], padded_labels[:count]

    def _code_labels(self, decisions: Decisions, count: int, labels: np.ndarray | None) -> np.ndarray:
        """Code labels, of which all classes and none are equally probable."""
        uniform = np.zeros((count, self.prior.num_classes + 1))
        shifted = None if labels is None else labels - NO_CLASS
        return code_symbols(decisions, uniform, shifted) + NO_CLASS

    def _code_codes(
        self, decisions: Decisions, features: jax.Array, here: np.ndarray, count: int, given: np.ndarray | None
    ) -> None:
        """Code the codes of a position into `here` `[B, channels]`, those given or the stream's."""
        context = features
        for level in range(self.prior.codes_per_position):
            if level:
                context = self._steps.next_context(context, here[:, level - 1], level - 1)
            logits = self._steps.code_logits(context, level)
            of_level = None if given is None else given[:, level]
            here[:count, level] = code_symbols(decisions, logits[:count], of_level)

    def _code_continuous(
        self,
        decisions: Decisions,
        features: jax.Array,
        here: np.ndarray,
        count: int,
        digits: int | None,
        given: np.ndarray | None,
    ) -> None:
        """Code the continuous parts of a position, where its code has them."""
        codes, first = here[:, 0], self.prior.codes_per_position
        for number, head in enumerate(self.prior.heads):
            part = slice(first, first + head.channels)
            first += head.channels
            rows = np.flatnonzero(self._steps.has_part(number, codes[:count]))
            if not len(rows):
                continue
            of_part = None if given is None else given[rows, part]
            if isinstance(head, GainHead):
                self._code_bins(decisions, number, features, codes, here[:, part], rows, of_part)
            else:
                assert digits is not None
                mixture = self._steps.mixture(number, features, codes).of(rows)
                here[rows, part] = code_residuals(decisions, mixture, digits, of_part)

    def _code_bins(
        self,
        decisions: Decisions,
        head: int,
        features: jax.Array,
        codes: np.ndarray,
        bins: np.ndarray,
        rows: np.ndarray,
        given: np.ndarray | None,
    ) -> None:
        """Code bins into `bins` `[B, g]`, group after group."""
        if self.prior.heads[head].num_bins == 1:
            return
        for group in range(bins.shape[-1]):
            logits = self._steps.bin_logits(head, features, codes, bins, group)
            bins[rows, group] = code_symbols(decisions, logits[rows], None if given is None else given[:, group])
