"""Bins for the signed lengths of a latent: each length is transmitted as the index of one of G centroids.

Centroids minimise the mean squared error (Lloyd, "Least squares quantization in PCM", 1982; Max, "Quantizing for
minimum distortion", 1960). The result of Lloyd's algorithm depends on its starting point. Here it starts from the best
partition of the sorted values into intervals with cuts among a few hundred, found by dynamic programming (Wu, "Optimal
quantization by matrix searching", 1991). The cuts it may choose from are as dense as the best cells are: in proportion
to the cube root of the density of values (Panter and Dite, "Quantization distortion in pulse-count modulation", 1951).
Where there are no more than `_NUM_CUTS` distinct values every cut is allowed, and the result is the global optimum.

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
    return codes[..., None] * groups + jnp.arange(groups, dtype=jnp.int32)


def _fit(values: np.ndarray, num_bins: int, max_iterations: int) -> np.ndarray:
    """Return centroids [G] float32 of sorted values [N] float64. A cell is the range of values between two `cuts`."""
    if not values.size:
        return np.zeros(num_bins, np.float32)
    sums = np.append(0.0, np.cumsum(values))
    cuts = _best_cuts(values, num_bins)
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


def _best_cuts(values: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the cuts, from 0 to N, of the partition into at most G cells with the least squared error."""
    allowed = _allowed_cuts(values, max(_NUM_CUTS, 4 * num_bins))
    error = _cell_errors(values, allowed)
    least, starts = error[:, 0], []
    for _ in range(min(num_bins, len(allowed) - 1) - 1):
        errors = error + least
        starts.append(errors.argmin(axis=1))
        least = np.take_along_axis(errors, starts[-1][:, None], axis=1)[:, 0]
    cuts = [len(allowed) - 1]
    for start in reversed(starts):
        cuts.append(start[cuts[-1]])
    return np.unique(allowed[[0, *cuts]])


def _allowed_cuts(values: np.ndarray, limit: int) -> np.ndarray:
    """Return 0, N and about `limit` cuts between them, at equal steps of the integral of the density's cube root.

    Two neighbours at a distance d have the density 1/d between them, hence the weight d^(2/3); and no more than one
    cut, so that a few outliers do not use up the cuts.
    """
    weights = np.cbrt(np.diff(values)) ** 2
    if np.count_nonzero(weights) <= limit:
        between = weights > 0
    else:
        # The step for which weights up to one step, together with the k that are larger, make `limit` steps.
        largest = np.sort(weights)[::-1]
        steps = np.cumsum(largest[::-1])[::-1][:limit] / (limit - np.arange(limit))
        step = steps[np.argmax(largest[:limit] <= steps)]
        passed = np.floor(np.cumsum(np.minimum(weights / step, 1.0)))
        between = np.diff(passed, prepend=0.0) > 0
    return np.concatenate([[0], np.flatnonzero(between) + 1, [len(values)]])


def _cell_errors(values: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Return the squared error of the cell between each two cuts, [end, start]; 0 where they are one, else infinite.

    Every sum starts at its own cell's first value: in a sum over all values outliers would drown a cell's error.
    """
    first, count = values[cuts[:-1]], np.diff(cuts)
    offsets = values - np.repeat(first, count)
    total, square = (np.add.reduceat(x, cuts[:-1]) for x in (offsets, np.square(offsets)))
    means, within = first + total / count, np.maximum(square - np.square(total) / count, 0.0)
    # [start, end], by sums over the intervals between neighbouring cuts.
    distances, weights = np.triu(means - means[:, None]), np.triu(np.broadcast_to(count, (len(count), len(count))))
    total = np.cumsum(weights * distances, axis=1)
    square = np.cumsum(np.triu(np.broadcast_to(within, weights.shape)) + weights * np.square(distances), axis=1)
    error = np.maximum(square - np.square(total) / np.maximum(np.cumsum(weights, axis=1), 1), 0.0)
    error[np.tril_indices(len(count), -1)] = np.inf
    whole = np.full((len(cuts), len(cuts)), np.inf)
    whole[1:, :-1] = error.T
    np.fill_diagonal(whole, 0.0)
    return whole
