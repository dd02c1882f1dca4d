"""How far two sets of images are apart, by their features `[N, F]` in one classifier.

The classifier is this repository's own, so distances compare sets of one data set with each other, and with nothing
that others report under similar names.
"""

import numpy as np

from hvq_jax.errors import UserError

_ROWS = 1000  # of distances at a time


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """|μ_a − μ_b|² + tr(Σ_a + Σ_b − 2 (Σ_a Σ_b)^½), of features `[N, F]` and `[M, F]`, N and M above 1.

    The squared 2-Wasserstein distance of the Gaussians with these moments (Dowson and Landau, 1982; as a distance of
    images Heusel et al., 2017, arXiv:1706.08500). It falls with the number of images: compare equal numbers only.
    UserError for features that are not finite, or of other shapes.
    """
    _check(a, b)
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariance_a, covariance_b = (np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b))
    # tr (Σ_a Σ_b)^½ is the sum of the roots of the eigenvalues of the symmetric Σ_a^½ Σ_b Σ_a^½.
    root = _root(covariance_a)
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    shift = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    spread = np.trace(covariance_a) + np.trace(covariance_b) - 2 * np.sqrt(np.maximum(product, 0)).sum()
    return float(shift + max(spread, 0.0))


def precision_and_recall(real: np.ndarray, drawn: np.ndarray, neighbours: int = 3) -> tuple[float, float]:
    """The share of drawn features inside the real ones' manifold, and of the real inside that of the drawn.

    A manifold is the union of balls about its features, each as wide as the distance to the k-th neighbour
    (Kynkäänniemi et al., 2019, arXiv:1904.06991). `[N, F]` and `[M, F]`, N and M above k. UserError as above.
    """
    _check(real, drawn)
    if min(len(real), len(drawn)) <= neighbours:
        raise UserError(f"{neighbours} neighbours need more features than {min(len(real), len(drawn))}")
    real, drawn = real.astype(np.float64), drawn.astype(np.float64)
    return _share_inside(drawn, real, neighbours), _share_inside(real, drawn, neighbours)


def _share_inside(points: np.ndarray, manifold: np.ndarray, neighbours: int) -> float:
    radii = np.concatenate(
        # Each is its own nearest, at distance 0.
        [np.partition(_squared(rows, manifold), neighbours, axis=1)[:, neighbours] for rows in _in_parts(manifold)]
    )
    return float(np.mean(np.concatenate([(_squared(rows, manifold) <= radii).any(1) for rows in _in_parts(points)])))


def _in_parts(x: np.ndarray) -> list[np.ndarray]:
    return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Squared distances `[n, m]`, not below 0."""
    return np.maximum(np.square(a).sum(1)[:, None] + np.square(b).sum(1) - 2 * a @ b.T, 0)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def _check(a: np.ndarray, b: np.ndarray) -> None:
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        raise UserError(f"distances are of features [N, F] and [M, F], two or more each, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise UserError("features are not all finite: the images, or the classifier, are broken")
