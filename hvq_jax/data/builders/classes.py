"""Class names and numbers from the labels that images are stored with."""

import collections
import dataclasses
import unicodedata
from collections.abc import Sequence
from functools import partial

from hvq_jax.errors import UserError

ONLY_CLASS = "image"  # the class name of images without labels
MOST_CLASSES = 100_000  # larger integers are not taken for classes

_HELD_BACK = (None, -1)  # where the authors of a data set do not publish the classes of a split

RawLabel = str | int | None  # a class name, its number, or none
Labelled = list[tuple[str, RawLabel]]  # name and label of each image

# A Mac writes é as e with an accent, other systems as one character: both name the same class.
composed = partial(unicodedata.normalize, "NFC")


@dataclasses.dataclass(frozen=True)
class Classified:
    """Images with the numbers of their classes."""

    class_names: tuple[str, ...]
    splits: dict[str, list[tuple[str, int]]]  # by split: name and label of each image
    left_out: collections.Counter[str]  # number of images in splits without labels


def classify(splits: dict[str, Labelled], where: str, class_names: Sequence[str] | None = None) -> Classified:
    """Number the classes of all splits together.

    Strings are class names, and sorted, so that labels never change between runs. Integers number `class_names`, by
    default "0", "1", … up to the largest label. Where no image has a label, all are of one class. Of a data set with
    labels, a split for validation or testing without any (None or -1) is left out.

    Args:
        splits: by split, the name and the label of each image.
        where: where the labels are, for errors.
        class_names: names of the classes that integers number.

    Raises:
        UserError: labels are of several kinds, out of range, or cannot be the name of a class.
    """
    labelled = {
        split: images for split, images in splits.items() if any(label not in _HELD_BACK for _, label in images)
    }
    if not labelled:
        return classify({split: [(name, ONLY_CLASS) for name, _ in images] for split, images in splits.items()}, where)
    if "train" not in labelled:
        raise UserError(f"{where}: the train split has no labels: set data.labels=none to train without classes")
    names = _names({label for images in labelled.values() for _, label in images}, class_names, where)
    number: dict[RawLabel, int] = {name: index for index, name in enumerate(names)}
    numbered: dict[str, list[tuple[str, int]]] = {}
    for split, images in labelled.items():
        numbered[split] = []
        for name, label in images:
            found = number.get(composed(label)) if isinstance(label, str) else label
            if found is None or not 0 <= found < len(names):
                wrong = (
                    "has no label, but others have one"
                    if label is None
                    else f"has the label {label}, out of range for the {len(names)} classes 0 to {len(names) - 1}"
                )
                raise UserError(f"{where}: {name} {wrong}: fix it, or set data.labels=none")
            numbered[split].append((name, found))
    num_left_out = sum(len(images) for split, images in splits.items() if split not in labelled)
    return Classified(tuple(names), numbered, collections.Counter({"without label": num_left_out}))


def _names(values: set[RawLabel], class_names: Sequence[str] | None, where: str) -> list[str]:
    """Return the names of the classes of labels that are all strings, or all integers."""
    texts = {value for value in values if isinstance(value, str)}
    numbers = {value for value in values if isinstance(value, int)}
    if texts and len(texts) < len(values):
        other = f"the number {min(numbers)}" if numbers else "none"
        raise UserError(f"{where}: one label is the text {min(texts)!r}, another {other}: use one kind for all")
    if not texts and max(numbers) >= MOST_CLASSES:
        raise UserError(f"{where}: the label {max(numbers)} is too large for a class: set data.labels=none")
    names = sorted(set(map(composed, texts))) or list(class_names or map(str, range(max(numbers) + 1)))
    if len(set(names)) < len(names):
        raise UserError(f"{where}: two classes have the same name: {', '.join(names)}")
    for name in names:
        if not name.isprintable() or name != name.strip():  # TFDS stores them as lines of UTF-8
            raise UserError(
                f"{where}: the class {name!r} must have a printable UTF-8 name without surrounding spaces: rename it"
            )
    return names
