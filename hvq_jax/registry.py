"""Finding a part by its name: one that is registered here, or one of the user's own by its import path."""

import importlib
from collections.abc import Mapping
from typing import Any

from hvq_jax.errors import ArgumentError


def find(argument: str, name: str, registered: Mapping[str, Any]) -> Any:
    """Return what `name` is registered as, or the object that "package.module:Class" names.

    Raises ArgumentError, naming `argument`, where there is neither.
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
