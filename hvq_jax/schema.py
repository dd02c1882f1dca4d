"""Schemas of files: the required form of a JSON value and of the arrays of an .npz, and their checks.

The form of a JSON value is a type: `bool`, `int`, `float`, `str`, `None`, a union of these, `list[T]`, `tuple[A, B]` (a
list of two), `dict[str, T]`, or a TypedDict, in which unknown keys are allowed. `Annotated` adds a `Range` or `Keys`:

    class Description(TypedDict):
        class_names: list[str]
        num_steps: NotRequired[Annotated[int, Range(0, 1000)]]

The form of an array is an `Array`. State each form next to the code that writes the file, and read the file with
`files.read_json` and `files.read_arrays`, which name it in the error.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, NotRequired, Required

import numpy as np

_MOST_SHOWN = 40  # characters of a wrong value in an error
_INTEGER_BITS = 64
_LARGEST_FLOAT = float(np.finfo(np.float32).max)
_KINDS = {"bools": "b", "integers": "iu", "floats": "f"}  # NumPy's `dtype.kind`


@dataclasses.dataclass(frozen=True)
class Range:
    """The range of a number, both ends included."""

    low: float
    high: float

    def problem(self, value: Any) -> str:
        """Say what is wrong with the number `value`, "" if nothing is."""
        return "" if self.low <= value <= self.high else f"must be from {self.low} to {self.high}, not {_show(value)}"


@dataclasses.dataclass(frozen=True)
class Keys:
    """The keys that an object needs, besides others."""

    names: tuple[str, ...]

    def problem(self, value: Mapping[str, Any]) -> str:
        """Say which key the object `value` lacks, "" if none."""
        missing = [name for name in self.names if name not in value]
        return f"has no {missing[0]}" if missing else ""


Count = Annotated[int, Range(0, 2**63 - 1)]


def check_json(value: Any, form: Any, name: str = "") -> None:
    """Check a value that `json.loads` returned.

    >>> check_json({"step": "3"}, dict[str, int])
    Traceback (most recent call last):
    ValueError: step must be an integer, not "3"

    Args:
        value: the value.
        form: its form, a type (see the module).
        name: the name of the value in errors, in a dotted form; "" for a whole file.

    Raises:
        ValueError: the value has another form; the message is one line.
    """
    if typing.get_origin(form) is Annotated:
        base, *rules = typing.get_args(form)
        check_json(value, base, name)
        for rule in rules:
            if problem := rule.problem(value):
                raise ValueError(f"{name or 'it'} {problem}")
        return
    if not any(_is_a(value, member) for member in _alternatives(form)):
        raise ValueError(f"{name or 'it'} must be {_in_words(form)}, not {_show(value)}")
    for key, item, form_of_item in _items(value, form, name):
        check_json(item, form_of_item, f"{name}.{key}" if name else key)


def _alternatives(form: Any) -> tuple[Any, ...]:
    return typing.get_args(form) if isinstance(form, types.UnionType) else (form,)


def _items(value: Any, form: Any, name: str) -> Iterable[tuple[str, Any, Any]]:
    """Return the key, the value and the form of each item of `value`, an object or a list as `form` says."""
    origin, members = typing.get_origin(form), typing.get_args(form)
    if typing.is_typeddict(form):
        return _members(value, form, name)
    if origin is dict:
        return [(_show_key(key), item, members[1]) for key, item in value.items()]
    if origin is list:
        return [(str(i), item, members[0]) for i, item in enumerate(value)]
    if origin is tuple:
        return [(str(i), item, member) for i, (item, member) in enumerate(zip(value, members, strict=True))]
    return []


def _members(value: Mapping[str, Any], form: Any, name: str) -> Iterable[tuple[str, Any, Any]]:
    if missing := sorted(form.__required_keys__ - set(value)):
        raise ValueError(f"{name or 'it'} has no {missing[0]}")
    for key, hint in typing.get_type_hints(form, include_extras=True).items():
        if key in value:
            wrapped = typing.get_origin(hint) in (Required, NotRequired)
            yield key, value[key], typing.get_args(hint)[0] if wrapped else hint


def _is_a(value: Any, form: Any) -> bool:
    origin = typing.get_origin(form)
    if form is None or form is types.NoneType:
        return value is None
    if form in (int, float):
        whole = isinstance(value, int) and not isinstance(value, bool) and value.bit_length() < _INTEGER_BITS
        return whole or (form is float and isinstance(value, float))
    if origin is tuple:
        return isinstance(value, list) and len(value) == len(typing.get_args(form))
    return isinstance(value, dict if typing.is_typeddict(form) else origin or form)


def _in_words(form: Any) -> str:
    words = {bool: "true or false", int: "an integer", float: "a number", str: "a string", types.NoneType: "null"}
    named = []
    for member in _alternatives(form):
        origin = typing.get_origin(member)
        if origin is tuple:
            named.append(f"a list of {len(typing.get_args(member))}")
        else:
            named.append(words.get(member, "a list" if origin is list else "an object"))
    return " or ".join(named)


def _show(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    text = json.dumps(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}…"


def _show_key(key: str) -> str:
    return key if key.isidentifier() else _show(key)


@dataclasses.dataclass(frozen=True)
class Array:
    """The form of an array: the kind of its values, its shape, and the range of its values.

    Each axis is a size or a name; axes of one name have one size. No axis is empty unless `may_be_empty`. Floats are
    finite in 32 bits unless `may_be_infinite`, which NaN may be too.
    """

    kind: str  # "bools", "integers" or "floats"
    shape: tuple[str | int, ...]
    low: float = -np.inf
    high: float = np.inf
    required: bool = True
    may_be_empty: bool = False
    may_be_infinite: bool = False
    other_shape: tuple[str | int, ...] | None = None  # of another rank, allowed as well


def check_arrays(
    arrays: Mapping[str, np.ndarray], schema: Mapping[str, Array], sizes: Mapping[str, int] | None = None
) -> None:
    """Check the arrays of an .npz; those that are not in the schema are ignored.

    >>> check_arrays({"labels": np.zeros(3, int)}, {"labels": Array("integers", ("N",))}, {"N": 4})
    Traceback (most recent call last):
    ValueError: labels must be integers [N] with N=4; it is int64 of shape (3,)

    Args:
        arrays: arrays by name.
        schema: the form of each array.
        sizes: the sizes of named axes, as far as they are known; the others are those of the first array that has them.

    Raises:
        ValueError: an array is missing or has another form; the message is one line.
    """
    known = dict(sizes or {})
    for name, form in schema.items():
        if name in arrays:
            _check_form(name, arrays[name], form, known)
            _check_values(name, arrays[name], form)
        elif form.required:
            raise ValueError(f"it has no array {name}")


def _check_form(name: str, array: np.ndarray, form: Array, known: dict[str, int]) -> None:
    """Check dtype and shape; add the sizes of axes to those `known`."""
    axes = form.shape
    if form.other_shape is not None and len(form.other_shape) == array.ndim:
        axes = form.other_shape
    expected = [known.get(axis) if isinstance(axis, str) else axis for axis in axes]
    found = f"it is {array.dtype} of shape {array.shape}"
    fits = len(axes) == array.ndim and all(
        size in (None, actual) for size, actual in zip(expected, array.shape, strict=True)
    )
    if array.dtype.kind not in _KINDS[form.kind] or not fits:
        given = ", ".join(f"{axis}={known[axis]}" for axis in axes if isinstance(axis, str) and axis in known)
        wanted = f"{form.kind} [{', '.join(map(str, axes))}]" + (f" with {given}" if given else "")
        raise ValueError(f"{name} must be {wanted}; {found}")
    if not array.size and not form.may_be_empty:
        raise ValueError(f"{name} must not be empty; {found}")
    known.update((axis, size) for axis, size in zip(axes, array.shape, strict=True) if isinstance(axis, str))


def _check_values(name: str, array: np.ndarray, form: Array) -> None:
    if not array.size or form.kind == "bools" or form.may_be_infinite:
        return
    lowest, highest = array.min().item(), array.max().item()  # NaN if any value is
    if form.kind == "floats" and not (lowest >= -_LARGEST_FLOAT and highest <= _LARGEST_FLOAT):
        raise ValueError(f"{name} is not finite everywhere")
    if lowest < form.low or highest > form.high:
        allowed = f"from {form.low} to {form.high}" if np.isfinite(form.high) else f"at least {form.low}"
        raise ValueError(f"{name} must be {allowed}; it is from {lowest} to {highest}")
