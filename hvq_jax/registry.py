"""Lookup of a component by its registered name or by an import path."""

import contextlib
import importlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any, TypeVar

from hvq_jax.errors import ArgumentError, UserError

T = TypeVar("T")


def choices_in_words(names: Iterable[Any], *, importable: bool = False) -> str:
    """Return what an error message says of a choice between `names`, or an import path if that is allowed too.

    >>> choices_in_words(["vq", "projected"])
    'choose one of vq, projected'
    """
    return f"choose one of {', '.join(map(str, names))}" + (", or package.module:Class" if importable else "")


def check_choice(argument: str, name: Any, names: Collection[Any], *, importable: bool = False) -> None:
    """Raise ArgumentError, naming `argument`, unless `name` is one of `names`.

    >>> check_choice("side", "middle", ("left", "right"))
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: side=middle: choose one of left, right
    """
    if name not in names:
        raise ArgumentError(f"{argument}={name}", choices_in_words(names, importable=importable))


def choose(argument: str, name: str, registered: Mapping[str, T], *, importable: bool = False) -> T:
    """Return the object registered as `name`; raise ArgumentError, naming `argument`, if there is none.

    >>> choose("side", "left", {"left": -1, "right": 1})
    -1
    """
    check_choice(argument, name, registered, importable=importable)
    return registered[name]


def find(argument: str, name: str, registered: Mapping[str, Any], interface: type = object) -> Any:
    """Return the class registered as `name`, or the one at the import path "package.module:Class".

    >>> find("container", "collections:OrderedDict", {"dict": dict}, interface=dict)
    <class 'collections.OrderedDict'>

    Raises ArgumentError, naming `argument`, if there is neither, or if an imported class lacks a public attribute,
    method or dataclass field, of `interface`.
    """
    module, colon, attribute = name.partition(":")
    if name in registered or not colon:
        return choose(argument, name, registered, importable=True)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # the module is a program and may raise anything
        raise ArgumentError(
            f"{argument}={name}", f"cannot be imported ({str(error) or type(error).__name__})"
        ) from None
    if not isinstance(found, type):
        raise ArgumentError(f"{argument}={name}", f"must be a class, not {type(found).__name__}")
    needed = {key for key in {**vars(interface), **inspect.get_annotations(interface)} if not key.startswith("_")}
    fields = getattr(found, "__dataclass_fields__", {})
    if missing := sorted(key for key in needed if key not in fields and not hasattr(found, key)):
        raise ArgumentError(
            f"{argument}={name}", f"is not like {interface.__name__} in {interface.__module__}: no {', '.join(missing)}"
        )
    return found


@contextlib.contextmanager
def constructing(argument: str, name: str) -> Iterator[None]:
    """Raise ArgumentError, naming `argument`, for an error of the imported class `name`, constructed in the block.

    >>> with constructing("container", "collections:OrderedDict"):
    ...     raise KeyError("size")
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: container=collections:OrderedDict: cannot be constructed (KeyError: 'size')
    """
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # it is a program, too
        if ":" not in name:
            raise
        raise ArgumentError(f"{argument}={name}", f"cannot be constructed ({type(error).__name__}: {error})") from None
