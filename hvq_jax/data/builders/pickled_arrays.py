"""Pickles that hold NumPy arrays, read without running anything that they ask for.

A pickle is a program: it may call whatever `find_class` gives it. Here that is nothing but a container that keeps what
it is handed, so that the worst a hostile pickle can do is to be refused.
"""

import io
import math
import pickle
from typing import Any

import numpy as np

from hvq_jax.errors import UserError


class _Kept:
    """Stands for whatever NumPy would make: the arguments and the state that it was to be made from."""

    state: Any = None

    def __init__(self, *arguments: Any):
        self.arguments = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Kept):
    pass


class _Dtype(_Kept):
    pass


_STAND_INS = {
    "numpy.core.multiarray._reconstruct": _Array,  # called to make an array, which then gets its state
    "numpy._core.multiarray._reconstruct": _Array,  # the same since NumPy 2
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Kept,  # an argument of the first
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (stand_in := _STAND_INS.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no array needs")
        return stand_in


def load_pickled(content: bytes, where: str) -> dict[Any, Any]:
    """Returns the dictionary of a pickle written by Python 2, whose strings are bytes here.

    Arrays in it are opaque until `uint8_array` turns them into such.

    Args:
        content: the pickle.
        where: what it is, for messages.

    Raises:
        UserError: it is damaged, holds no dictionary, or asks for anything but arrays.
    """
    try:
        value = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may fail in any of its instructions
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where} is damaged or not the published file ({reason})") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} is not the published file: it holds no dictionary")
    return value


def uint8_array(value: Any, where: str) -> np.ndarray:
    """The uint8 array, of any shape, that an item of `load_pickled`'s dictionary stands for.

    Raises:
        UserError: it is no array, or one of another type, or its size is not that of its shape.
    """
    match value:
        case _Array(state=(int(), tuple(shape), _Dtype(arguments=("u1" | b"u1", *_)), bool(by_column), bytes(content))):
            if all(type(side) is int and side >= 0 for side in shape) and math.prod(shape) == len(content):
                return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")
    raise UserError(f"{where} is damaged or not the published file: it should hold an array of unsigned bytes")
