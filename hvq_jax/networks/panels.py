"""Products of few rows with the kernels of dense layers, for a loop on CPU.

XLA's product reads a kernel `[I, O]` 64 columns at a time, a piece of each row. Where the kernels of a loop are larger
than the nearest caches, the processor waits at each row. A panel of 64 columns is in sequence, and read ahead.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from hvq_jax.fusion import materialised

_COLUMNS = 64


def with_panels(variables: Any) -> dict[str, Any]:
    """Return a module's variables and the panels `[O / 64, I, 64]` of its dense kernels `[I, O]`.

    A `Dense` that has panels multiplies with them, on CPU. Compute them before the loop: XLA leaves them inside.
    """
    kernels = {path: jnp.asarray(kernel) for path, kernel in flatten_dict(variables["params"]).items()}
    panels = {
        path: kernel.reshape(len(kernel), -1, _COLUMNS).swapaxes(0, 1)
        for path, kernel in kernels.items()
        if path[-1] == "kernel" and kernel.ndim == 2 and kernel.shape[1] > _COLUMNS and kernel.shape[1] % _COLUMNS == 0
    }
    return {**variables, "panels": unflatten_dict(panels)}


def multiply_panels(x: jax.Array, kernel: jax.Array, panels: jax.Array) -> jax.Array:
    """Multiply `x` `[B, I]` with `kernel` `[I, O]`, on CPU by its panels."""
    return jax.lax.platform_dependent(x, kernel, panels, cpu=_by_panels, default=lambda x, kernel, panels: x @ kernel)


def _by_panels(x: jax.Array, kernel: jax.Array, panels: jax.Array) -> jax.Array:
    products = jnp.broadcast_to(x, (len(panels), *x.shape)) @ panels
    return materialised(products)[0].swapaxes(0, 1).reshape(len(x), kernel.shape[1])
