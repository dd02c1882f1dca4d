"""The baseline of a prior: how often each code stands at each position in images of each class."""

import numpy as np

_SMOOTHINGS = (0.01, 0.03, 0.1, 0.3, 1.0)


def histogram_nats(
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray],
    num_codes: int,
) -> float:
    """Nats a latent of the codes of `test`, by their frequencies in `train` given class and position.

    Each split is codes `[N, h, w]` int and labels `[N]` int. The frequencies are those of the class at the position,
    smoothed by a number times those of the codes anywhere; it is the one that does best on `validation`.
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
