"""Splits from the names of files and folders."""

import pathlib
import re
from collections.abc import Collection

import tensorflow_datasets as tfds

from hvq_jax.errors import UserError

SPLIT_NAMES = {
    "train": tfds.Split.TRAIN,
    "val": tfds.Split.VALIDATION,
    "valid": tfds.Split.VALIDATION,
    "validation": tfds.Split.VALIDATION,
    "test": tfds.Split.TEST,
}
SPLITS = tuple(dict.fromkeys(SPLIT_NAMES.values()))


def by_split(names: Collection[str], ending: str = "") -> dict[str, str]:
    """Return which of `names` is called like each split, besides the `ending`, in the order train, validation, test.

    >>> by_split(["Val", "train", "notes"])
    {'train': 'train', 'validation': 'Val'}
    """
    found: dict[str, str] = {}
    for name in sorted(names):
        split = SPLIT_NAMES.get(name.lower().removesuffix(ending))
        if split is not None and found.setdefault(split, name) != name:
            raise UserError(f"{found[split]} and {name} both name the {split} split: merge them")
    return {str(split): found[split] for split in SPLITS if split in found}


def files_by_split(folder: pathlib.Path, paths: Collection[str]) -> dict[str, list[str]]:
    """Return the files of each split, sorted, by a word of their path; without such words all are of train.

    >>> files_by_split(pathlib.Path("pets"), ["data/test-00000-of-00001.parquet", "data/train-00000-of-00001.parquet"])
    {'train': ['data/train-00000-of-00001.parquet'], 'test': ['data/test-00000-of-00001.parquet']}

    Args:
        folder: the folder that the paths are relative to, for error messages.
        paths: at least one path.

    Raises:
        UserError: a path has the words of two splits, only some paths have one, or none is of train.
    """
    named: dict[str | None, list[str]] = {}
    for path in sorted(paths):
        words = re.split(r"[\W_]+", path.lower())
        splits = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(splits) > 1:
            raise UserError(f"{folder / path}: is it of the split {' or '.join(sorted(splits))}? Rename it")
        named.setdefault(str(*splits) or None, []).append(path)
    if None in named and len(named) > 1:
        raise UserError(
            f"{folder}: {named[None][0]} is of no split, but others are: give all names with train, val or test"
        )
    if None in named:
        return {"train": named[None]}
    if "train" not in named:
        raise UserError(f"{folder} has files of the split {', '.join(map(str, named))}, but none of train")
    return {str(split): named[split] for split in SPLITS if split in named}
