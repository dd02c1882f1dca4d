"""Range coding of binary decisions, to a whole number of bytes.

The coder is that of the package `constriction` (Bamler, arXiv:2201.01741), which ends a stream with whole words of 32
bits. `shortest_stream` ends it with the fewest bytes that decode to the same decisions, at most 8 bits above their
information.
"""

import importlib.util
import types
from typing import Any

import numpy as np

from hvq_jax.errors import UserError

_WORD_BYTES = 4
_STATE_BYTES = 8  # of the coder's interval


class DamagedStreamError(ValueError):
    """A stream that no encoder wrote."""


NEEDED = "compression needs the package constriction: pip install 'constriction>=0.5,<0.6'"


def is_installed() -> bool:
    """Return whether the coder's package is installed."""
    return importlib.util.find_spec("constriction") is not None


def _coder() -> types.ModuleType:
    try:
        import constriction
    except ImportError:
        raise UserError(NEEDED) from None
    return constriction.stream


class RangeEncoder:
    """A stream of binary decisions being written."""

    def __init__(self) -> None:
        stream = _coder()
        self._encoder: Any = stream.queue.RangeEncoder()
        self._model = stream.model.Bernoulli(perfect=False)

    def encode(self, bits: np.ndarray, probabilities: np.ndarray) -> None:
        """Append `bits` `[n]` bool, each of which is 1 with its probability `[n]` float64."""
        if len(bits):
            self._encoder.encode(bits.astype(np.int32), self._model, np.ascontiguousarray(probabilities))

    def finish(self) -> bytes:
        """Return the stream, in the fewest bytes that `RangeDecoder` reads as the same decisions."""
        position, (lower, width) = self._encoder.pos()
        return shortest_stream(self._encoder.get_compressed(), position, lower, width)


def shortest_stream(words: np.ndarray, position: int, lower: int, width: int) -> bytes:
    """Return the fewest bytes that, continued by zeros, lie in the encoder's final interval.

    A stream is a number in [0, 1), written in base 2^32, and stands for the decisions in whose interval it lies.

    Args:
        words: [n] uint32, a number in the interval.
        position: the number of words before the interval's ends differ, at most.
        lower: the lower end of the interval after these words, in 64 bits; earlier words may have a carry to come.
        width: of the interval, in the same unit.
    """
    num_bytes = position * _WORD_BYTES + _STATE_BYTES
    inside = int.from_bytes(words.astype(">u4").tobytes().ljust(num_bytes, b"\0"), "big")
    start = inside - (inside - lower) % (1 << 8 * _STATE_BYTES)
    for left_out in range(_STATE_BYTES, -1, -1):  # bytes
        unit = 1 << 8 * left_out
        number = -(-start // unit) * unit
        if number < start + width:
            break
    return number.to_bytes(num_bytes, "big").rstrip(b"\0")


class RangeDecoder:
    """A stream of binary decisions being read."""

    def __init__(self, stream: bytes) -> None:
        coder = _coder()
        padding = bytes(-len(stream) % _WORD_BYTES + _STATE_BYTES)
        self._decoder: Any = coder.queue.RangeDecoder(np.frombuffer(stream + padding, ">u4").astype(np.uint32))
        self._model = coder.model.Bernoulli(perfect=False)

    def decode(self, probabilities: np.ndarray) -> np.ndarray:
        """Return the next bits `[n]` bool; raise DamagedStreamError where no encoder wrote what follows."""
        if not len(probabilities):
            return np.zeros(0, bool)
        try:
            return self._decoder.decode(self._model, np.ascontiguousarray(probabilities)) != 0
        except AssertionError:
            raise DamagedStreamError("its bits stand for nothing") from None
