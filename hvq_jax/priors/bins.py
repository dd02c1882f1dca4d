"""Bins for the signed lengths of a latent: each length is transmitted as the index of one of G centroids.

Centroids minimise the mean squared error (Lloyd, "Least squares quantization in PCM", 1982; Max, "Quantizing for
minimum distortion", 1960). The result of Lloyd's algorithm depends on its starting point. Here it starts from the best
partition of the sorted values into intervals with cuts on a coarse grid, found by dynamic programming (Wu, "Optimal
quantization by matrix searching", 1991). For up to `_NUM_CUTS` values every cut is allowed, and the result is the
global optimum.

There is one table of centroids for all codes, or one per code. With g groups of channels, where values have a last axis
that codes lack, there is one table per code and group, because the groups of a code differ in length.
"""

import jax
import jax.numpy as jnp
import numpy as np

from hvq_jax.errors import ArgumentError

_NUM_CUTS = 256


def fit_bins(
    values: np.ndarray,
    codes: np.ndarray,
    *,
    num_codes: int,
    num_bins: int,
    per_code: bool,
    max_iterations: int = 300,
) -> np.ndarray:
    """Fit centroids to signed lengths; this takes seconds for millions of values.

    >>> values, codes = np.array([0.0, 2.0, 9.0, 11.0]), np.array([0, 1, 0, 1])
    >>> fit_bins(values, codes, num_codes=2, num_bins=2, per_code=False).tolist()
    [[1.0, 10.0]]

    Args:
        values: [N], or [N, g] with g groups, float.
        codes: [N] int in [0, num_codes).
        num_codes: K.
        num_bins: G.
        per_code: fit a table per code and group. A table without values is replaced by that of all values together.
        max_iterations: limit on Lloyd's iterations per table; they stop earlier if no value changes its cell.

    Returns:
        [1, G] or, per code, [K·g, G] float32, ascending, with the groups of a code in consecutive rows. The last
        centroid is repeated if there are fewer distinct values than bins. Without any values the centroids are zero.

    Raises:
        ArgumentError: num_bins is below 1, or a value is not finite.
    """
    if num_bins < 1:
        raise ArgumentError(f"num_bins={num_bins}", "must be at least 1")
    if not np.isfinite(values).all():
        raise ArgumentError(
            "values", "cannot fit bins, signed lengths are not all finite; has the autoencoder's training diverged?"
        )
    groups = values.shape[1] if np.ndim(values) == 2 else 1
    rows = (np.asarray(codes)[:, None] * groups + np.arange(groups)).ravel()
    values = np.asarray(values, np.float64).ravel()
    order = np.argsort(values)
    together = _fit(values[order], num_bins, max_iterations)
    if not per_code:
        return together[None]
    order = order[np.argsort(rows[order], kind="stable")]
    ends = np.cumsum(np.bincount(rows, minlength=num_codes * groups))
    parts = np.split(values[order], ends[:-1])
    return np.stack([_fit(part, num_bins, max_iterations) if part.size else together for part in parts])


@jax.jit
def to_bins(values: jax.Array, codes: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the index of the centroid nearest to each value; ties go to the lowest index.

    >>> to_bins(jnp.array([0.0, 9.0]), jnp.array([0, 1]), jnp.array([[1.0, 10.0]])).tolist()
    [0, 1]

    Args:
        values: [...], or [..., g] with g groups, float32.
        codes: [...] int32.
        centroids: [1, G] or [K·g, G] float32, from `fit_bins`.

    Returns:
        int32, with the shape of `values`.
    """
    tables = centroids[_rows(codes, values, centroids)]
    return jnp.argmin(jnp.abs(values[..., None] - tables), axis=-1).astype(jnp.int32)


@jax.jit
def from_bins(bins: jax.Array, codes: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the centroids, float32, of `bins`, [...] or [..., g] int32; other arguments as in `to_bins`.

    >>> from_bins(jnp.array([0, 1]), jnp.array([0, 1]), jnp.array([[1.0, 10.0], [2.0, 20.0]])).tolist()
    [1.0, 20.0]
    """
    return centroids[_rows(codes, bins, centroids), bins]


def _rows(codes: jax.Array, like: jax.Array, centroids: jax.Array) -> jax.Array:
    """Return the index of the table of each element of `like`."""
    if centroids.shape[0] == 1:
        return jnp.zeros(like.shape, jnp.int32)
    if codes.ndim == like.ndim:
        return codes
    groups = like.shape[-1]
    return codes[..., None] * groups + jnp.arange(groups)


def _fit(values: np.ndarray, num_bins: int, max_iterations: int) -> np.ndarray:
    """Return centroids [G] float32 of sorted values [N] float64. A cell is the range of values between two `cuts`."""
    if not values.size:
        return np.zeros(num_bins, np.float32)
    sums = np.append(0.0, np.cumsum(values))
    cuts = _best_cuts(values, sums, num_bins)
    for _ in range(max_iterations):
        centroids = _means(sums, cuts)
        inner = np.searchsorted(values, (centroids[1:] + centroids[:-1]) / 2, side="right")
        moved = np.unique([0, *inner, len(values)])
        if np.array_equal(moved, cuts):
            break
        cuts = moved
    centroids = _means(sums, cuts)
    return np.pad(centroids, (0, num_bins - len(centroids)), mode="edge").astype(np.float32)


def _means(sums: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    return np.diff(sums[cuts]) / np.diff(cuts)


def _best_cuts(values: np.ndarray, sums: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the cuts, from 0 to N, of the partition into at most G cells with the least squared error."""
    allowed = np.arange(len(values) + 1)
    if len(values) > (limit := max(_NUM_CUTS, 4 * num_bins)):
        # Half at equal counts, half at equal distances: the best cells are shorter where values are dense, but less so.
        by_count = np.linspace(0, len(values), limit // 2 + 1).astype(int)
        by_distance = np.searchsorted(values, np.linspace(values[0], values[-1], limit // 2 + 1)[1:-1])
        allowed = np.unique(np.append(by_count, by_distance))
    squares = np.append(0.0, np.cumsum(np.square(values)))
    count, total, square = (np.subtract.outer(x, x) for x in (allowed, sums[allowed], squares[allowed]))
    # [end, start]: the squared error of a cell; an empty cell costs nothing.
    error = np.maximum(square - np.square(total) / np.maximum(count, 1), 0.0)
    error[count < 0] = np.inf
    least, starts = error[:, 0], []
    for _ in range(min(num_bins, len(allowed) - 1) - 1):
        errors = error + least
        starts.append(errors.argmin(axis=1))
        least = np.take_along_axis(errors, starts[-1][:, None], axis=1)[:, 0]
    cuts = [len(allowed) - 1]
    for start in reversed(starts):
        cuts.append(start[cuts[-1]])
    return np.unique(allowed[[0, *cuts]])
