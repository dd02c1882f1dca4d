"""Initialisation of codes from the first encoder outputs: a random subset, or cluster centres."""

from typing import Literal

import jax
import jax.numpy as jnp

from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.codebook import MovingAverages

_EMPTY = 1e-30  # above the count of an empty cluster, 0, and below that of any other

# By name: iterations of Lloyd's algorithm, starting from random encoder outputs; None: not initialised from data.
INITIALISATIONS: dict[str, int | None] = {"uniform": None, "data": 0, "kmeans": 10}
Initialisation = Literal["uniform", "data", "kmeans"]


def codes_from_data(
    vectors: jax.Array,
    codes: jax.Array,
    key: jax.Array,
    *,
    iterations: int,
    axis_name: str | None = None,
    mask: jax.Array | None = None,
) -> jax.Array:
    """Return codes `[K, D]` found by Lloyd's k-means algorithm on encoder outputs.

    An iteration is an update of the moving averages with decay 0. An empty cluster is a dead code: it is reset to a
    random row, after the last iteration too. Zeghidour et al., 2021 (arXiv:2107.03312) initialise codebooks in this
    way.

    >>> vectors = jnp.array([[0.0], [2.0], [10.0], [12.0]])
    >>> codes = codes_from_data(vectors, jnp.zeros((2, 1)), jax.random.key(0), iterations=10)
    >>> jnp.sort(codes, axis=0).round(1).tolist()
    [[1.0], [11.0]]

    Args:
        vectors: `[..., D]`, encoder outputs.
        codes: `[K, D]`; only the shape matters.
        key: must be equal on all devices.
        iterations: of Lloyd's algorithm; with 0 the codes are random rows of `vectors`.
        axis_name: name of the device axis, or None. All devices get the clusters of the whole batch.
        mask: [...] bool, False where vectors are padding; None: nowhere.
    """
    unused = jnp.zeros(len(codes), jnp.float32)

    def fill(averages: MovingAverages, step: jax.Array | int) -> MovingAverages:
        step_key = jax.random.fold_in(key, step)
        return codebook.revive(averages, unused, vectors, step_key, below=_EMPTY, axis_name=axis_name, mask=mask)[0]

    def lloyd(step: jax.Array, averages: MovingAverages) -> MovingAverages:
        averages = fill(averages, step)
        indices = nearest_codes(vectors, averages.codes)
        if mask is not None:
            indices = codebook.unassigned_where(~mask, indices, len(codes))
        counts = codebook.count_assignments(indices, len(codes), axis_name)
        return codebook.update_averages(averages, vectors, indices, counts, decay=0.0, axis_name=axis_name)

    averages = jax.lax.fori_loop(0, iterations, lloyd, codebook.unassigned(codes))
    return fill(averages, iterations).codes
