"""Permutations that stay the same in every release of NumPy."""

import numpy as np

from hvq_jax.errors import UserError


def permutation(size: int, *seeds: int) -> np.ndarray:
    """Return a random permutation of range(size), int64 [size], that depends only on `seeds`.

    It sorts the raw bits of PCG64, which NumPy guarantees never to change. `Generator.permutation` may change between
    releases (NEP 19), and a run resumed after an upgrade would then see the images in another order.

    Raises:
        UserError: a seed is negative.
    """
    if min(seeds) < 0:
        raise UserError(f"seed {min(seeds)} is negative; it must be 0 or more")
    return np.argsort(np.random.PCG64(seeds).random_raw(size), kind="stable")
