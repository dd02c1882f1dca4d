"""Permutations that stay the same in every release of NumPy."""

import numpy as np

from hvq_jax.errors import UserError


def permutation(size: int, *seeds: int) -> np.ndarray:
    """Returns a random permutation of range(size), int64 [size], determined by `seeds` alone.

    It sorts the raw bits of PCG64, which NumPy promises never to change; the order that
    `Generator.permutation` gives may change with a release (NEP 19), and a run resumed after an
    upgrade would see other images.

    Raises:
        UserError: a seed is negative.
    """
    if min(seeds) < 0:
        raise UserError(f"seed {min(seeds)} is negative; give a seed of 0 or more")
    return np.argsort(np.random.PCG64(seeds).random_raw(size), kind="stable")
