"""Baseline of a prior: the frequency of each code at each position, per class."""

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

    Args:
        train: codes `[N, h, w]` int and labels `[N]` int; the other splits have the same form.
        validation: the split that selects the smoothing.
        test: the split that is scored.
        num_codes: K.
    """
    codes, labels = train
    everywhere = np.bincount(codes.ravel(), minlength=num_codes) + 1.0
    everywhere /= everywhere.sum()
    counts = np.zeros((labels.max() + 1, codes[0].size, num_codes))
    positions = np.arange(codes[0].size)
    np.add.at(counts, (labels[:, None], positions, codes.reshape(len(codes), -1)), 1)

    def nats(split: tuple[np.ndarray, np.ndarray], smoothing: float) -> float:
        codes, labels = split
        weights = smoothing * num_codes * everywhere
        chosen = codes.reshape(len(codes), -1)
        rows = (labels[:, None], positions)
        p = (counts[(*rows, chosen)] + weights[chosen]) / (counts.sum(-1)[rows] + smoothing * num_codes)
        return float(-np.log(p).sum(axis=1).mean())

    return nats(test, min(_SMOOTHINGS, key=lambda smoothing: nats(validation, smoothing)))
