"""Whether JAX will run on CPU or on an accelerator, told before JAX is imported."""

import importlib.util
import os

_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")


def chooses_cpu() -> bool:
    """Return whether JAX will run on CPU; where an accelerator's plugin is installed, only if JAX_PLATFORMS says so."""
    accelerator = any(importlib.util.find_spec(plugin) for plugin in _PLUGINS)
    return not accelerator or os.environ.get("JAX_PLATFORMS") == "cpu"
