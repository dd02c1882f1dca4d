"""Quantizers whose methods are compiled whole: uncompiled, each of their operations would be a program of its own."""

import functools
import inspect

import jax

METHODS = (
    *("codes", "entropy", "init", "learn", "normalise", "quantize", "start_from_data", "step", "vectors"),
    *("numbers", "round", "up"),  # of scalars
)


@functools.cache
def _compiled_method(quantizer, name):
    method = getattr(quantizer, name)
    names = [name for name in inspect.signature(method).parameters if name == "axis_name"]
    return jax.jit(method, static_argnames=names)


class compiled:  # noqa: N801 - used like a function
    """The same quantizer with compiled methods, once for each quantizer and shape."""

    def __init__(self, quantizer):
        self._quantizer = quantizer

    def __getattr__(self, name):
        """Return a compiled method, or another attribute as it is."""
        return _compiled_method(self._quantizer, name) if name in METHODS else getattr(self._quantizer, name)
