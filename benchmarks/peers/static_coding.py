"""Entropy coding under static frequencies, a table for each position, by the range coder of `constriction`.

A. Bamler, "Understanding Entropy Coding With Asymmetric Numeral Systems (ANS)", arXiv:2201.01741.
"""

import constriction
import numpy as np


def frequencies(symbols: np.ndarray, num_symbols: int) -> np.ndarray:
    """Return the probabilities `[P, K]` float64 of symbols `[N, P]`, integers in [0, K), at each of P positions.

    One symbol is added to the N, spread evenly over all K, so that none has a probability of 0.

    >>> frequencies(np.array([[0], [0], [1]]), 2).tolist()
    [[0.625, 0.375]]
    """
    counts = np.stack([np.bincount(column, minlength=num_symbols) for column in symbols.T])
    return (counts + 1 / num_symbols) / (len(symbols) + 1)


def encode_symbols(symbols: np.ndarray, probabilities: np.ndarray) -> bytes:
    """Return symbols `[N, P]`, integers in [0, K), coded under probabilities `[P, K]`, in at most 8 bytes too many."""
    encoder = constriction.stream.queue.RangeEncoder()
    for column, row in zip(symbols.T, probabilities, strict=True):
        encoder.encode(np.ascontiguousarray(column, np.int32), _model(row))
    compressed: np.ndarray = encoder.get_compressed()
    return compressed.astype("<u4").tobytes()


def decode_symbols(data: bytes, count: int, probabilities: np.ndarray) -> np.ndarray:
    """Return the symbols `[count, P]` int32 that `encode_symbols` was given."""
    decoder = constriction.stream.queue.RangeDecoder(np.frombuffer(data, "<u4").astype(np.uint32))
    return np.stack([decoder.decode(_model(row), count) for row in probabilities], axis=1)


def _model(probabilities: np.ndarray) -> constriction.stream.model.Categorical:
    return constriction.stream.model.Categorical(probabilities, perfect=False)
