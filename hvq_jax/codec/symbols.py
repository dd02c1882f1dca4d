"""Symbols of K outcomes as binary decisions, down a tree over the index."""

import numpy as np

from hvq_jax.codec.decisions import Decisions


def code_symbols(decisions: Decisions, logits: np.ndarray, symbols: np.ndarray | None) -> np.ndarray:
    """Return the next symbols, `[n]` int32 in [0, K), one for each distribution.

    A symbol is its binary digits, from the highest: each decides between the halves of the range that is left. Where
    the upper half is beyond K, there is nothing to decide.

    Args:
        decisions: the stream.
        logits: [n, K] float32 or float64.
        symbols: [n] int, for a writer; None for a reader.
    """
    num_symbols = logits.shape[-1]
    masses = _masses(logits)
    rows, node = np.arange(len(logits)), np.zeros(len(logits), np.int64)  # the digits so far
    for level in range(len(masses) - 1, -1, -1):  # of binary digits
        open_ = (2 * node + 1) << level < num_symbols
        chosen, below = rows[open_], 2 * node[open_]
        digits = None if symbols is None else (symbols[open_] >> level) & 1 == 1
        node = 2 * node
        node[open_] += decisions.decide(masses[level][chosen, below + 1], masses[level][chosen, below], digits)
    return node.astype(np.int32)


def _masses(logits: np.ndarray) -> list[np.ndarray]:
    """Return, for level l of the tree, the masses `[n, 2^(levels - l)]` of runs of 2^l symbols, up to a factor.

    Sums of positive numbers, all of which keep their precision, however small.
    """
    num_symbols = logits.shape[-1]
    num_levels = (num_symbols - 1).bit_length()
    wide = logits.astype(np.float64)
    leaves = np.zeros((len(logits), 1 << num_levels))
    leaves[:, :num_symbols] = np.exp(wide - wide.max(axis=-1, keepdims=True))
    masses = [leaves]
    while len(masses) < num_levels:
        masses.append(masses[-1][:, ::2] + masses[-1][:, 1::2])
    return masses[:num_levels]
