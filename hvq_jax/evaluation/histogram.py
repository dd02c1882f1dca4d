"""Baseline of a prior: the frequency of each code at each position, per class."""

import math

import numpy as np

_SMOOTHINGS = (0.01, 0.03, 0.1, 0.3, 1.0)


def histogram_nats(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_codes: int,
) -> float:
    """Return the nats per latent of the codes of `test`, by their frequencies in `train` given class and position.

    The frequencies are smoothed with those over all positions and classes, by the weight that is best on `validation`.
    Where a position has L codes, each of them has frequencies of its own, whatever the others are.

    Args:
        train: codes `[N, h, w]` or `[N, h, w, L]` int, and labels `[N]` int; the other splits have the same form.
        validation: the split that selects the smoothing.
        test: the split that is scored.
        num_codes: K.
    """
    codes, labels = train
    of_each = codes.reshape(-1, math.prod(codes.shape[3:]))
    everywhere = np.stack([np.bincount(column, minlength=num_codes) + 1.0 for column in of_each.T])  # [L, K]
    everywhere /= everywhere.sum(axis=1, keepdims=True)
    num_classes = 1 + max(int(split[1].max()) for split in (train, validation, test))
    counts = np.zeros((num_classes, codes[0].size, num_codes))
    positions = np.arange(codes[0].size)
    levels = positions % len(everywhere)
    np.add.at(counts, (labels[:, None], positions, codes.reshape(len(codes), -1)), 1)

    def nats(split: tuple[np.ndarray, np.ndarray], smoothing: float) -> float:
        codes, labels = split
        weights = smoothing * num_codes * everywhere
        chosen = codes.reshape(len(codes), -1)
        rows = (labels[:, None], positions)
        p = (counts[(*rows, chosen)] + weights[levels, chosen]) / (counts.sum(-1)[rows] + smoothing * num_codes)
        return float(-np.log(p).sum(axis=1).mean())

    return nats(test, min(_SMOOTHINGS, key=lambda smoothing: nats(validation, smoothing)))
