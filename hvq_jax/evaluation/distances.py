"""Distances between two sets of images, measured on their features `[N, F]` in one classifier.

The classifier is this repository's own, so the distances compare sets from one data set with each other. They are not
comparable with published values of the same name.
"""

import numpy as np

from hvq_jax.errors import UserError

_ROWS = 1000  # rows of the distance matrix computed at a time


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Return |μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½) for two sets of features.

    This is the squared 2-Wasserstein distance of Gaussians with these moments (Dowson and Landau, 1982; as a distance
    of images Heusel et al., 2017, arXiv:1706.08500). It decreases with the number of images, so compare only sets of
    equal size.

    Args:
        a: `[N, F]`, N > 1.
        b: `[M, F]`, M > 1.

    Raises:
        UserError: features are not finite or have other shapes.
    """
    _check(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (Σ_a Σ_b)^½ is the sum of the square roots of the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½.
    root = _root(covariance_a)
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return float(shift + max(spread, 0.0))


def precision_and_recall(real: np.ndarray, drawn: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """Return the fraction of drawn features inside the real ones' manifold, and vice versa.

    A manifold is the union of balls around its features, with the distance to the k-th neighbour as the radius
    (Kynkäänniemi et al., 2019, arXiv:1904.06991).

    Args:
        real: `[N, F]`, N > k.
        drawn: `[M, F]`, M > k.
        neighbours: k.

    Raises:
        UserError: there are too few features, they are not finite, or they have other shapes.
    """
    _check(real, drawn)
    if min(len(real), len(drawn)) <= neighbours:
        raise UserError(f"{neighbours} neighbours need more features than {min(len(real), len(drawn))}")
    real, drawn = real.astype(np.float64), drawn.astype(np.float64)
    return _share_inside(drawn, real, neighbours), _share_inside(real, drawn, neighbours)


def _share_inside(points: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    radii = np.concatenate(
        # Each point is its own nearest neighbour, at distance 0.
        [np.partition(_squared(rows, manifold), neighbours, axis=1)[:, neighbours] for rows in _in_parts(manifold)]
    )
    return float(np.mean(np.concatenate([(_squared(rows, manifold) <= radii).any(1) for rows in _in_parts(points)])))


def _in_parts(x: np.ndarray) -> list[np.ndarray]:
    return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances `[n, m]`, clipped at 0."""
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T, 0)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(f"features must be [N, F] and [M, F] with N and M at least 2, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("features are not all finite: check the images and the classifier")
