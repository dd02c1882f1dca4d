"""The files, splits and classes of a folder of images."""

import collections
import dataclasses
import hashlib
import os
import pathlib
import unicodedata
from functools import partial

from hvq_jax.data.builders.layouts import LabelledPaths, by_folders, by_tables, find_split_folders, find_tables
from hvq_jax.data.listing import ENDINGS, Stamps, describe, find_images, stamp
from hvq_jax.errors import ArgumentError, UserError

# A Mac writes é as e with an accent, other systems as one character: both name the same class.
_composed = partial(unicodedata.normalize, "NFC")


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The images of a folder, in an order that depends only on their names."""

    folder: pathlib.Path
    class_names: tuple[str, ...]  # sorted
    splits: dict[str, list[tuple[str, int]]]  # by split: path relative to the folder, and label, of each file
    digest: str  # hash of all names, sizes and modification times; if it changes, the images may have changed
    left_out: str  # the numbers of files that are no images, by kind


def list_images(folder: pathlib.Path) -> ImageFiles:
    """List the images of a folder with their splits and classes; `find_images` says which files these are.

    The files may be laid out in three ways:

    - One folder per class, with the files at any depth below it.
    - All files directly in `folder`; they form a single class.
    - A folder `images/` beside train.csv, val.csv and test.csv with the columns filename and label, as in
      mini-ImageNet.

    In the first two, a level of folders train, val (or valid, validation) and test may be added at the top; without it
    all images belong to the train split.

    Raises:
        UserError: the folder does not exist or cannot be read, has no images or another layout, or has a class
            without images.
    """
    if not folder.is_dir():
        raise ArgumentError(f"manual_dir={folder}", "not a folder; name the one with your images")
    listing = find_images(folder)
    images, folders, left_out = listing.images, listing.folders, listing.left_out
    if not images:
        others = f", only {describe(left_out)}" if left_out else ""
        raise UserError(f"{folder} has no {', '.join(ENDINGS)} files{others}: name the folder with your images")
    tables = find_tables(folder)
    if tables and not find_split_folders(folders):
        splits = by_tables(folder, images, tables)
        unlisted = len(images) - sum(map(len, splits.values()))
        left_out = (
            left_out - collections.Counter({".csv": len(tables)}) + collections.Counter({"in no table": unlisted})
        )
        images |= {path.name: stamp(path.stat()) for path in tables.values()}
    else:
        splits = by_folders(folder, images, folders)
    class_names = _class_names(folder, splits)
    label = {name: number for number, name in enumerate(class_names)}
    return ImageFiles(
        folder=folder,
        class_names=class_names,
        splits={split: [(path, label[_composed(name)]) for path, name in files] for split, files in splits.items()},
        digest=_digest(images, splits),
        left_out=describe(left_out),
    )


def _class_names(folder: pathlib.Path, splits: dict[str, LabelledPaths]) -> tuple[str, ...]:
    """Return the class names of all splits, composed, and sorted so that labels never change between runs."""
    names = tuple(sorted({_composed(name) for name in _stored_names(splits)}))
    for name in names:
        if not name.isprintable() or name != name.strip():  # TFDS stores them as lines of UTF-8
            raise UserError(
                f"{folder}: the class {name!r} must have a printable UTF-8 name without surrounding spaces: rename it"
            )
    return names


def _stored_names(splits: dict[str, LabelledPaths]) -> set[str]:
    return {name for files in splits.values() for _, name in files}


def _digest(stamps: Stamps, splits: dict[str, LabelledPaths]) -> str:
    digest = hashlib.sha256()
    for path, (size, changed) in stamps.items():
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(path), size, changed))
    if any(name != _composed(name) for name in _stored_names(splits)):
        digest.update(b"composed")  # copies of earlier versions have other labels
    return digest.hexdigest()
