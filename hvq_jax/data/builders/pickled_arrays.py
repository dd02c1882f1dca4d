"""Loading of pickles that hold NumPy arrays, without executing any code from them.

A pickle is a program: it may call anything that `find_class` returns. Here that is only a container that stores its
arguments, so the worst that can happen to a hostile pickle is that it is rejected.
"""

import io
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from hvq_jax.errors import UserError

_MOST_TUPLES = 1000  # hashing tuples within tuples takes stack for each


class _Kept:
    """A stand-in for an object that NumPy would create; it stores the arguments and the state to create it from."""

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
    "numpy.core.multiarray._reconstruct": _Array,  # called to create an array, which then receives its state
    "numpy._core.multiarray._reconstruct": _Array,  # its name since NumPy 2
    "numpy.dtype": _Dtype,
    "numpy.ndarray": _Kept,  # an argument of _reconstruct
}


class _InertUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Kept]:
        if (stand_in := _STAND_INS.get(f"{module}.{name}")) is None:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which no array needs")
        return stand_in


def _check_sizes(content: bytes) -> None:
    """Raise if unpickling takes memory or stack that the length of the pickle does not justify."""
    num_tuples = 0
    for opcode, argument, _ in pickletools.genops(content):  # raises if a string is longer than what follows
        if "PUT" in opcode.name and argument is not None and argument > len(content):
            raise pickle.UnpicklingError(f"it has a memo of {argument:,} entries")  # a table of that length
        num_tuples += "TUPLE" in opcode.name or opcode.name == "FROZENSET"
    if num_tuples > _MOST_TUPLES:
        raise pickle.UnpicklingError(f"it has {num_tuples:,} tuples, more than any published file")


def load_pickled(content: bytes, where: str) -> dict[Any, Any]:
    """Return the dictionary in a pickle written by Python 2, whose strings become bytes.

    Arrays in it are opaque until `uint8_array` converts them.

    Args:
        content: the pickle.
        where: description of the pickle, for error messages.

    Raises:
        UserError: the pickle is damaged, does not hold a dictionary, or refers to anything but arrays.
    """
    try:
        _check_sizes(content)
        value = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle can raise any exception
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where} is damaged or not the published file ({reason})") from error
    if not isinstance(value, dict):
        raise UserError(f"{where} is not the published file: it does not hold a dictionary")
    return value


def uint8_array(value: Any, where: str) -> np.ndarray:
    """Return the uint8 array, of any shape, that a value in `load_pickled`'s dictionary stands for.

    Raises:
        UserError: the value is not an array, has another dtype, or its size does not match its shape.
    """
    match value:
        case _Array(state=(int(), tuple(shape), _Dtype(arguments=("u1" | b"u1", *_)), bool(by_column), bytes(content))):
            if all(type(side) is int and side >= 0 for side in shape) and math.prod(shape) == len(content):
                return np.frombuffer(content, np.uint8).reshape(shape, order="F" if by_column else "C")
    raise UserError(f"{where} is damaged or not the published file: it should hold an array of unsigned bytes")
