"""XLA options that have to be in the environment before JAX first uses a device."""

import importlib.util
import os

import jaxlib

# Library kernels for matrix products, convolutions and reductions: they halve a training step on CPU.
_CPU_OPTION = "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"
# An unknown option ends the process when the backend starts, so only versions it was seen in get it.
_KNOWN_JAXLIB = ("0.10.2",)
_ACCELERATOR_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")


def set_cpu_options() -> None:
    """Sets the fast options where JAX will run on CPU. XLA_FLAGS that the user has set are left as they are."""
    accelerator = any(importlib.util.find_spec(plugin) for plugin in _ACCELERATOR_PLUGINS)
    if jaxlib.__version__ in _KNOWN_JAXLIB and not accelerator:
        os.environ.setdefault("XLA_FLAGS", _CPU_OPTION)
