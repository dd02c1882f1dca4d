"""A barrier to XLA's fusion."""

from typing import Any

import jax


def materialised(*arrays: jax.Array) -> Any:
    """Return the arrays unchanged, computed before their consumers: XLA does not fuse across this point.

    On CPU this requires an option of XLA (see `devices/xla.py`); without it the results are the same, but slower.
    """
    return jax.lax.optimization_barrier(arrays)


def materialised_on_cpu(x: jax.Array) -> jax.Array:
    """Return `x` unchanged, computed before its consumers on CPU only; elsewhere XLA may fuse it with them."""
    return jax.lax.platform_dependent(x, cpu=lambda x: materialised(x)[0], default=lambda x: x)
