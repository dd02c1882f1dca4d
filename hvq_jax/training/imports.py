"""Imports that a program can do without."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """Makes `import module` raise ImportError during the block, unless it has been imported before."""
    modules: dict[str, Any] = sys.modules
    if module in modules:
        yield
        return
    modules[module] = None
    try:
        yield
    finally:
        del modules[module]
