"""Binary decisions, each given the masses of its two outcomes, as a stream of bytes.

Both sides compute the masses, and have to use the same probabilities: any difference makes everything after it
meaningless. So a probability is one of a grid of them. With L the log of the ratio of the masses, it is that of the
multiple of 1/d nearest to 6 tanh(L/6): of steps in L about 1/d where L is near 0, where they cost most (the square of a
step times p(1 − p)/24 nats), and larger ones where the outcome is almost certain.

A grid alone only makes differences rare: masses that are the least bit apart still round to neighbours where they lie
at the border between two. The encoder knows where that could happen, that is, where L lies within a `tolerance` of a
border. So it marks these decisions and says on which side of the border it is; everywhere else a decoder whose L
differs by no more than the tolerance rounds to the same probability by itself.
"""

import dataclasses
from typing import Protocol

import numpy as np

from hvq_jax.codec.range_coder import RangeDecoder, RangeEncoder
from hvq_jax.errors import UserError

_LEAST_PROBABILITY = 1e-6  # of either outcome


@dataclasses.dataclass(frozen=True)
class Grid:
    """The probabilities that decisions may have, and how far encoder and decoder may be apart."""

    steps_per_unit: int = 64  # d
    tolerance: float = 0.0  # of L; 0: both sides compute the same, bit for bit

    @property
    def mark_probability(self) -> float:
        """The probability with which a decision is taken to be marked; where L is near 0, twice that are."""
        return self.tolerance * self.steps_per_unit

    def place(self, upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Return 6 d tanh(L/6) `[n]` float64 of the masses of 1 and 0, `[n]` float64; 0 where both are 0.

        With L a logarithm, that is a ratio of cube roots, and needs no logarithm.
        """
        upper, lower = np.cbrt(upper), np.cbrt(lower)
        total = upper + lower
        if not np.isfinite(total).all():
            raise UserError("the prior gives probabilities that are not finite: has its training diverged?")
        return 6 * self.steps_per_unit * np.divide(upper - lower, total, out=np.zeros_like(total), where=total > 0)

    def probability(self, cell: np.ndarray) -> np.ndarray:
        """Return the probability of a 1, `[n]` float64, where `place` is rounded to `cell`, integers `[n]`.

        Only of products and a quotient, which are the same on every machine.
        """
        y = cell / (6 * self.steps_per_unit)
        upper, lower = (1 + y) * (1 + y) * (1 + y), (1 - y) * (1 - y) * (1 - y)
        return np.clip(upper / (upper + lower), _LEAST_PROBABILITY, 1 - _LEAST_PROBABILITY)


class Decisions(Protocol):
    """A stream of decisions: `DecisionWriter` or `DecisionReader`."""

    def decide(self, upper: np.ndarray, lower: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        """Return the next decisions, `[n]` bool.

        Args:
            upper: [n] float64, the mass of 1, at least 0.
            lower: [n] float64, the mass of 0; the two need not add up to 1.
            bits: [n] bool, the decisions for a writer; ignored by a reader.
        """
        ...


class DecisionWriter:
    """The encoder's side: appends decisions to a stream."""

    def __init__(self, grid: Grid) -> None:
        self._grid, self._stream = grid, RangeEncoder()

    def decide(self, upper: np.ndarray, lower: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        """See `Decisions`."""
        assert bits is not None
        place = self._grid.place(upper, lower)
        cell = np.rint(place)
        if self._grid.tolerance:
            below = np.floor(place)
            marked = np.abs(place - below - 0.5) <= self._grid.tolerance * self._grid.steps_per_unit
            self._stream.encode(marked, np.full(len(marked), self._grid.mark_probability))
            self._stream.encode((cell > below)[marked], np.full(np.count_nonzero(marked), 0.5))
        self._stream.encode(bits, self._grid.probability(cell))
        return bits

    def finish(self) -> bytes:
        """Return the stream."""
        return self._stream.finish()


class DecisionReader:
    """The decoder's side: reads decisions from a stream."""

    def __init__(self, stream: bytes, grid: Grid) -> None:
        self._grid, self._stream = grid, RangeDecoder(stream)

    def decide(self, upper: np.ndarray, lower: np.ndarray, bits: np.ndarray | None) -> np.ndarray:
        """See `Decisions`; raise DamagedStreamError for a stream that no encoder wrote."""
        del bits
        place = self._grid.place(upper, lower)
        cell = np.rint(place)
        if self._grid.tolerance:
            marked = self._stream.decode(np.full(len(place), self._grid.mark_probability))
            above = self._stream.decode(np.full(np.count_nonzero(marked), 0.5))
            cell[marked] = np.floor(place[marked]) + above
        return self._stream.decode(self._grid.probability(cell))
