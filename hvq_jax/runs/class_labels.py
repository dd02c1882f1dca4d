"""Classes of a run by name or number."""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from hvq_jax.errors import ArgumentError
from hvq_jax.priors.labels import NO_CLASS

# What a user may give: a name or a number, None for no class, or one of these for each image.
Labels = str | int | None | Sequence[str | int | None] | np.ndarray


def folded(name: str) -> str:
    """Return a class's name as it is compared where the letter case does not matter.

    >>> folded("Ankle Boot") == folded("ankle boot")
    True
    """
    return unicodedata.normalize("NFC", name).casefold()


def class_number(name: str, class_names: Sequence[str]) -> int | None:
    """Return the number of the class `name`, in any letter case if that is unambiguous; None if there is none.

    >>> class_number("dress", ["Shirt", "Dress"]), class_number("hat", ["Shirt", "Dress"])
    (1, None)
    """
    if name in class_names:
        return list(class_names).index(name)
    same = [number for number, known in enumerate(class_names) if folded(known) == folded(name)]
    return same[0] if len(same) == 1 else None


def listed(class_names: Iterable[str]) -> str:
    """Return all classes in a line, for errors.

    >>> listed(["Shirt", "Dress"])
    '0 Shirt, 1 Dress'
    """
    return ", ".join(f"{number} {name}" for number, name in enumerate(class_names))


def class_numbers(labels: Labels, class_names: Sequence[str]) -> np.ndarray:
    """Return the numbers of `labels`, `[N]` int32, or `[]` of a single one; -1 for None, no class.

    >>> class_numbers(["Dress", 0, None], ["Shirt", "Dress"]).tolist(), class_numbers("Shirt", ["Shirt"]).tolist()
    ([1, 0, -1], 0)

    Raises:
        ArgumentError: a label is neither a class nor None.
    """
    given = np.asarray(labels, object)
    if given.ndim > 1:
        raise ArgumentError("labels", f"must be one, or one for each image, [N]; they have the shape {given.shape}")
    numbers = [_number(label, class_names) for label in given.reshape(-1).tolist()]
    return np.array(numbers, np.int32).reshape(given.shape)


def _number(label: Any, class_names: Sequence[str]) -> int:
    number: int | None = None
    if label is None:
        return NO_CLASS
    if isinstance(label, str):
        number = class_number(label, class_names)
    elif isinstance(label, int | np.integer) and not isinstance(label, bool) and NO_CLASS <= label < len(class_names):
        number = int(label)
    if number is None:
        raise ArgumentError("labels", f"{label!r} is none of the classes {listed(class_names)}")
    return number
