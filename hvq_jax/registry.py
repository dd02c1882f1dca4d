"""Lookup of a component by its registered name or by an import path."""

import importlib
from collections.abc import Mapping
from typing import Any

from hvq_jax.errors import ArgumentError


def find(argument: str, name: str, registered: Mapping[str, Any]) -> Any:
    """Return the object registered as `name`, or the one at the import path "package.module:Class".

    Raises ArgumentError, naming `argument`, if there is neither.
    """
    if name in registered:
        return registered[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        known = ", ".join(registered)
        raise ArgumentError(f"{argument}={name}", f"choose one of {known}, or package.module:Class")
    try:
        found = getattr(importlib.import_module(module), attribute)
    except Exception as error:  # the module is a program and may raise anything
        raise ArgumentError(f"{argument}={name}", f"cannot be imported ({error})") from None
    if not isinstance(found, type):
        raise ArgumentError(f"{argument}={name}", f"must be a class, not {type(found).__name__}")
    return found
