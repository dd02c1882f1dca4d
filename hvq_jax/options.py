"""Options as dataclass fields that carry their range, their choices and their help text.

An option is declared once, where it is used:

    @dataclasses.dataclass(frozen=True)
    class LatentOptions(Options):
        num_codes: int = option(512, "number of codes, K", low=1)

Everything else follows from the declaration: the object is checked on construction, the command line takes its flag
from it, `--help` and the reference page list it, and `changeable` and `recorded` say whether a run may be continued
with another value.
"""

import dataclasses
import math
import numbers
import types
import typing
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from hvq_jax.errors import ArgumentError
from hvq_jax.registry import choices_in_words

LARGEST_INTEGER = 2**31 - 1
LARGEST_NUMBER = float(np.finfo(np.float32).max)


@dataclasses.dataclass(frozen=True)
class Rule:
    """The allowed values of an option, and its help text."""

    help: str
    low: float | None = None
    high: float | None = None  # if None, the largest integer or finite number of 32 bits, as on devices
    choices: Collection[Any] | None = None  # may be a registry; entries added later count too
    importable: bool = False  # "package.module:Class" is allowed besides the choices
    changeable: bool = False  # a run may be continued with another value, and learns the same
    recorded: bool = False  # a run may be continued with another value, and what it learns depends on the steps with it
    added: bool = False  # runs of earlier versions lack it, and are as with its default

    def allowed(self) -> str:
        """Describe the allowed values in words; return "" if every value of the type is allowed."""
        if self.choices is not None:
            return choices_in_words(self.choices, importable=self.importable)
        if self.low is not None and self.high is not None:
            return f"must be from {_number(self.low)} to {_number(self.high)}"
        if self.low is not None:
            return f"must be at least {_number(self.low)}"
        return "" if self.high is None else f"must be at most {_number(self.high)}"

    def problem(self, value: Any) -> str:
        """Say in words what is wrong with `value`, of the right type; return "" if it is allowed."""
        if self.choices is not None:
            allowed = value in self.choices or (self.importable and ":" in value)
            return "" if allowed else self.allowed()
        numbers = value if isinstance(value, tuple) else (value,)
        return next(filter(None, (self._check_number(number) for number in numbers)), "")

    def _check_number(self, number: Any) -> str:
        if not isinstance(number, int | float):
            return ""
        if (self.low is not None and number < self.low) or (self.high is not None and number > self.high):
            return self.allowed()
        if self.high is None and isinstance(number, int) and number > LARGEST_INTEGER:
            return f"must be at most {LARGEST_INTEGER}"
        return "must be finite in 32 bits" if self.high is None and abs(number) > LARGEST_NUMBER else ""


def _number(value: float) -> str:
    """Format an integer with all its digits, and any other number in its shortest form."""
    return str(value) if isinstance(value, int) else f"{value:g}"


def option(default: Any, help: str, **rule: Any) -> Any:
    """Return a dataclass field with `default` that obeys `Rule(help, **rule)`."""
    return dataclasses.field(default=default, metadata={"rule": Rule(help, **rule)})


def section(default_factory: Any, help: str = "") -> Any:
    """Return a dataclass field that is itself an `Options` object."""
    return dataclasses.field(default_factory=default_factory, metadata={"help": help})


def redefault(kind: Any, name: str, default: Any) -> Any:
    """Return the field `name` of the dataclass `kind` with another default, for a subclass."""
    return dataclasses.field(default=default, metadata=kind.__dataclass_fields__[name].metadata)


class Options:
    """A dataclass whose fields are checked on construction; ArgumentError names the first bad one."""

    def __post_init__(self) -> None:
        """Check every option against its rule; subclasses add checks between options."""
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            if "rule" in field.metadata:
                object.__setattr__(self, field.name, checked(field, getattr(self, field.name)))


def checked(field: dataclasses.Field[Any], value: Any) -> Any:
    """Return `value`, as a Python number if it is numpy's; raise ArgumentError if the option `field` cannot have it.

    Nothing is imported: of an import path only the form is checked.
    """
    if value is None and is_optional(field.type):
        return None
    if isinstance(value, np.generic):  # as JSON and range checks need it
        value = value.item()
    if not _has_type(value, field.type):
        raise ArgumentError(f"{field.name}={value!r}", f"must be {type_in_words(field.type)}")
    rule: Rule = field.metadata["rule"]
    if problem := rule.problem(value):
        raise ArgumentError(f"{field.name}={value}", problem)
    if value == "":  # as an unset variable of the shell leaves it
        raise ArgumentError(
            f"{field.name}=", "must not be empty" + (", but may be None" if is_optional(field.type) else "")
        )
    return value


def field_names(kind: Any) -> frozenset[str]:
    """Return the names of the fields of a dataclass."""
    return frozenset(field.name for field in dataclasses.fields(kind))


def refuse_unused(
    options: Any, choice: str, used: Collection[str], registered: Mapping[str, Collection[str]], section: str = ""
) -> None:
    """Raise ArgumentError for a changed option of other components that the chosen component does not use.

    Every option always has a value, so only one that differs from its default shows that an effect is expected.

    >>> @dataclasses.dataclass(frozen=True)
    ... class NetworkOptions(Options):
    ...     name: str = option("gru", "network")
    ...     dropout: float = option(0.0, "dropout in training (transformer)")
    >>> refuse_unused(NetworkOptions(dropout=0.1), "name", (), {"gru": (), "transformer": ("dropout",)})
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: dropout=0.1: name=gru has no such option: choose name=transformer, or dropout=0.0

    Args:
        options: the options of all components.
        choice: the option that names the chosen component.
        used: the options that the chosen component uses.
        registered: the options that each registered component uses, by its name.
        section: put before each option's name, such as "codebook.".
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        users = [name for name, names in registered.items() if field.name in names and field.name != choice]
        if users and field.name not in used and value != field.default:
            raise ArgumentError(
                f"{section}{field.name}={value}",
                f"{section}{choice}={getattr(options, choice)} has no such option: choose "
                f"{section}{choice}={'|'.join(users)}, or {section}{field.name}={field.default}",
            )


def walk(kind: Any, prefix: str = "") -> Iterator[tuple[str, dataclasses.Field[Any]]]:
    """Yield the dotted name and the field of every option of the dataclass `kind` and of its sections."""
    for field in dataclasses.fields(kind):
        if "rule" in field.metadata:
            yield prefix + field.name, field
        else:
            yield from walk(field.default_factory, f"{prefix}{field.name}.")


def type_in_words(kind: Any) -> str:
    """Describe a type in words, such as "an integer" or "a number or None"."""
    words = {int: "an integer", float: "a number", str: "a string", bool: "True or False"}
    kinds = members(kind)
    named = [words.get(member, "a tuple of integers") for member in kinds if member is not type(None)]
    return " or ".join([*named, "None"] if type(None) in kinds else named)


def members(kind: Any) -> tuple[Any, ...]:
    """Return the types that a union is of; of names in a `Literal` that is `str`.

    >>> members(typing.Literal["left", "right"] | None)
    (<class 'str'>, <class 'NoneType'>)
    """
    if typing.get_origin(kind) is typing.Literal:
        return tuple(dict.fromkeys(map(type, typing.get_args(kind))))
    if isinstance(kind, types.UnionType) or typing.get_origin(kind) is typing.Union:
        return tuple(dict.fromkeys(member for part in typing.get_args(kind) for member in members(part)))
    return (kind,)


def is_optional(kind: Any) -> bool:
    """Return whether None is a value of this type."""
    return type(None) in members(kind)


def _has_type(value: Any, kind: Any) -> bool:
    return any(_is_a(value, member) for member in members(kind))


def _is_a(value: Any, kind: Any) -> bool:
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, numbers.Real) and not isinstance(value, bool) and not math.isnan(value)
    if typing.get_origin(kind) is tuple:
        return isinstance(value, tuple) and all(type(item) is int for item in value)
    return isinstance(value, kind)
