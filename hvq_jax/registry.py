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
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ArgumentError(f"{argument}={name}", f"cannot be imported ({error})") from None
