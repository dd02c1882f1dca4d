"""Codes from the first encoder outputs: some of them, or the centres of their clusters."""

import jax
import jax.numpy as jnp

from hvq_jax.quantizers import codebook
from hvq_jax.quantizers.assignment import nearest_codes
from hvq_jax.quantizers.codebook import MovingAverages

# How a codebook starts. The iterations of Lloyd's algorithm, from random encoder outputs on; None: not from data.
INITIALISATIONS: dict[str, int | None] = {"uniform": None, "data": 0, "kmeans": 10}


def codes_from_data(
    vectors: jax.Array, codes: jax.Array, key: jax.Array, *, iterations: int, axis_name: str | None = None
) -> jax.Array:
    """`[K, D]` from `vectors` `[..., D]`: random rows after 0 iterations of Lloyd's k-means, then the clusters' means.

    An iteration is a step of the moving averages that remembers nothing, and an empty cluster is a dead code: it starts
    anew on a random row, after the last iteration too. `key` must be equal on every device; all of them get the
    clusters of the whole batch. Used for codebooks by Zeghidour et al., 2021 (arXiv:2107.03312). Only the shape of
    `codes` `[K, D]` matters.
    """
    unused = jnp.zeros(len(codes))

    def fill(averages: MovingAverages, step: jax.Array | int) -> MovingAverages:
        step_key = jax.random.fold_in(key, step)
        return codebook.revive(averages, unused, vectors, step_key, below=0.5, axis_name=axis_name)[0]

    def lloyd(step: jax.Array, averages: MovingAverages) -> MovingAverages:
        averages = fill(averages, step)
        indices = nearest_codes(vectors, averages.codes)
        counts = codebook.count_assignments(indices, len(codes), axis_name)
        return codebook.update_averages(averages, vectors, indices, counts, decay=0.0, axis_name=axis_name)

    averages = jax.lax.fori_loop(0, iterations, lloyd, codebook.unassigned(codes))
    return fill(averages, iterations).codes
