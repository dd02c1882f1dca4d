"""Any folder of images."""

import collections
import dataclasses
import pathlib
from collections.abc import Generator

from hvq_jax.data.builders.classes import classify, composed
from hvq_jax.data.builders.collection import EncodedCollection, digest_of
from hvq_jax.data.builders.decode_files import Encoded
from hvq_jax.data.builders.layouts import JSON_TABLE, by_folders, by_json, by_tables, find_split_folders, find_tables
from hvq_jax.data.builders.own_images import OwnImages
from hvq_jax.data.listing import ENDINGS, describe, find_images, stamp
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import open_regular
from hvq_jax.registry import check_choice
from hvq_jax.value_range import ValueRange


@dataclasses.dataclass(frozen=True)
class ImageFiles(EncodedCollection):
    """The images of a folder, in an order that depends only on their names, which are paths below it."""

    def files(self, split: str) -> Generator[Encoded, None, None]:
        """Yield the path of each file."""
        for name, _ in self.splits[split]:
            yield self.root / name


class ImageFolder(OwnImages):
    """The images of a folder and their classes, in one of the layouts of `list_images`."""

    @staticmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> ImageFiles:
        """List the images of a folder."""
        return list_images(path, labels)


def list_images(folder: pathlib.Path, labels: str = "auto") -> ImageFiles:
    """List the images of a folder with their splits and classes; `find_images` says which files these are.

    The files may be laid out in four ways:

    - One folder per class, with the files at any depth below it.
    - All files directly in `folder`; they form a single class.
    - A folder `images/` beside train.csv, val.csv and test.csv with the columns filename and label, as in
      mini-ImageNet.
    - Files at any depth beside dataset.json, as StyleGAN and EDM write it; see `by_json`.

    In the first two, a level of folders train, val (or valid, validation) and test may be added at the top; without it
    all images belong to the train split.

    Args:
        folder: the folder.
        labels: "folder" for classes from folders, "none" for one class; "auto" for classes from what there is, if
            that is clear.

    Raises:
        UserError: the folder does not exist or cannot be read, has no images or another layout, or has a class
            without images.
    """
    check_choice("labels", labels, ("auto", "folder", "none"))
    if not folder.is_dir():
        raise ArgumentError(f"manual_dir={folder}", "not a folder; name the one with your images")
    listing = find_images(folder)
    images, folders, left_out = listing.images, listing.folders, listing.left_out
    if not images:
        others = f", only {describe(left_out)}" if left_out else ""
        raise UserError(f"{folder} has no {', '.join(ENDINGS)} files{others}: name the folder with your images")
    tables = find_tables(folder)
    if labels == "auto" and (folder / JSON_TABLE).exists():
        splits = by_json(folder, images, _content(folder / JSON_TABLE))
        left_out = left_out - collections.Counter({".json": 1})
        images |= {JSON_TABLE: stamp((folder / JSON_TABLE).stat())}
    elif labels != "folder" and tables and not find_split_folders(folders):
        splits = by_tables(folder, images, tables)
        unlisted = len(images) - sum(map(len, splits.values()))
        left_out = (
            left_out - collections.Counter({".csv": len(tables)}) + collections.Counter({"in no table": unlisted})
        )
        images |= {path.name: stamp(path.stat()) for path in tables.values()}
        if labels == "none":
            splits = {split: [(name, None) for name, _ in files] for split, files in splits.items()}
    else:
        splits = by_folders(folder, images, folders, labels)
    names = {label for files in splits.values() for _, label in files if isinstance(label, str)}
    # Copies of earlier versions have other labels.
    choices = ["composed"] if any(name != composed(name) for name in names) else []
    choices += [labels] if labels == "none" else []
    return ImageFiles(folder, classify(splits, str(folder)), digest_of(images, *choices), left_out)


def _content(path: pathlib.Path) -> bytes:
    try:
        with open_regular(path) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
