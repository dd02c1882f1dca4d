"""A barrier to XLA's fusion."""

from typing import Any

import jax


def materialised(*arrays: jax.Array) -> Any:
    """Return the arrays unchanged, computed before their consumers: XLA does not fuse across this point.

    On CPU this requires an option of XLA (see `devices/xla.py`); without it the results are the same, but slower.
    """
    return jax.lax.optimization_barrier(arrays)
