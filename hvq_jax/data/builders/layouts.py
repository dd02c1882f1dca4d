"""Layouts of a folder of images: where the split and the class of each file come from.

All paths are strings relative to the folder, with "/" as the separator.
"""

import csv
import io
import pathlib
import re
from collections.abc import Collection, Sequence

import tensorflow_datasets as tfds

from hvq_jax.data.builders.classes import Labelled, composed
from hvq_jax.data.builders.split_names import by_split
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import open_regular, parse_json

JSON_TABLE = "dataset.json"

_NUMBERED_PART = re.compile(r"(?:shard|part|chunk)?s?[-_. ]?\d+", re.IGNORECASE)
_TABLE_HEADER = ["filename", "label"]
_TABLE_IMAGES = "images"  # the folder that contains the files named in a table


def find_split_folders(folders: Collection[str]) -> dict[str, str]:
    """Return the top-level folders that are named after a split, by split."""
    return by_split(folders)


def find_tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the tables train.csv, val.csv and test.csv that exist in a folder, by split."""
    names = by_split([path.name for path in folder.glob("*.csv")], ending=".csv")
    return {split: folder / name for split, name in names.items()}


def by_folders(
    folder: pathlib.Path, images: Collection[str], folders: Collection[str], labels: str = "auto"
) -> dict[str, Labelled]:
    """Return splits and classes from folder names: one folder per class, with or without split folders above.

    Args:
        folder: the folder that all paths are relative to, for error messages.
        images: paths of all images.
        folders: paths of all folders.
        labels: "folder" for classes, "none" for none, with images at any depth; "auto" for classes, unless the
            folders may be shards.

    Raises:
        UserError: a split or class folder has no images, or images lie beside such folders.
        ArgumentError: `labels` is "auto", and the folders may be shards.
    """
    roots = find_split_folders(folders)
    if not roots:
        return {tfds.Split.TRAIN: _classes(folder, images, folders, labels)}
    beside = [path for path in images if path.split("/")[0] not in roots.values()]
    if beside or tfds.Split.TRAIN not in roots:
        problem = f"also {beside[0]}" if beside else "no folder train"
        raise UserError(
            f"{folder} has the split folders {', '.join(roots.values())}, but {problem}: move all images into "
            "folders train, val and test, including classes with one of these names"
        )
    splits = {
        split: _classes(folder / root, _below(root, images), _below(root, folders), labels)
        for split, root in roots.items()
    }
    if len({all(label is None for _, label in files) for files in splits.values()}) > 1:
        raise UserError(f"{folder}: either all of {', '.join(roots.values())} must have class folders, or none")
    return {split: [(f"{roots[split]}/{path}", name) for path, name in files] for split, files in splits.items()}


def _below(root: str, paths: Collection[str]) -> list[str]:
    """Return the paths below the folder `root`, relative to it."""
    return [path.removeprefix(f"{root}/") for path in paths if path.startswith(f"{root}/")]


def _classes(folder: pathlib.Path, images: Collection[str], folders: Collection[str], labels: str) -> Labelled:
    if not images:
        raise UserError(f"{folder} has no images: add some or remove it")
    loose = [path for path in images if "/" not in path]
    if labels == "none" or len(loose) == len(images):
        return [(path, None) for path in images]
    if loose:
        raise UserError(f"{folder / loose[0]} lies beside class folders: move it into one of them")
    files: Labelled = [(path, path.split("/")[0]) for path in images]
    names = {path.split("/")[0] for path in images}
    empty = {name for name in folders if "/" not in name} - names
    if empty:
        raise UserError(f"the class folder {folder / min(empty)} has no images: add some or remove it")
    if labels == "auto" and may_be_shards(names):
        first, *_, last = sorted(names) * 2
        raise ArgumentError(
            "labels=auto",
            f"the folders {first} to {last} of {folder} may be classes, or shards of one set of images: choose "
            "data.labels=folder or data.labels=none",
        )
    return files


def may_be_shards(names: Collection[str]) -> bool:
    """Return whether folders are called like the parts of one large set of images, and so may be no classes.

    They are if all have numbers with leading zeros, as in FFHQ and the sets of StyleGAN and EDM, or are called shard,
    part or chunk and a number.

    >>> may_be_shards(["00000", "01000"]), may_be_shards(["part-1", "part-2"]), may_be_shards(["0", "1", "10"])
    (True, True, False)
    """
    is_padded = any((name[0] == "0" and len(name) > 1) or not name[0].isdigit() for name in names)
    return is_padded and all(_NUMBERED_PART.fullmatch(name) for name in names)


def by_json(folder: pathlib.Path, images: Collection[str], content: bytes) -> dict[str, Labelled]:
    """Return the labels of dataset.json, as StyleGAN and EDM write it: {"labels": [["00000/img00000000.png", 6], …]}.

    Labels may be null for all images; then there are none. All images are of the train split.

    Args:
        folder: the folder or file that all paths are relative to, for error messages.
        images: paths of all images.
        content: the JSON text.

    Raises:
        UserError: the file is damaged, has several labels per image, or not one for each image.
    """
    where = folder / JSON_TABLE
    try:
        table = parse_json(content)
        labels = table["labels"]
        numbers = {} if labels is None else {str(name): label for name, label in labels}
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f'{where} cannot be read ({type(error).__name__}: {error}): it must be {{"labels": [[PATH, NUMBER], …]}}, '
            'or {"labels": null}'
        ) from None
    if labels is None:
        return {tfds.Split.TRAIN: [(path, None) for path in images]}
    if len(numbers) < len(labels):
        raise UserError(f"{where}: an image has two labels: remove one of them, or set data.labels=none")
    for name, label in numbers.items():
        if name not in images:
            raise UserError(f"{where}: there is no image {name} in {folder}")
        if type(label) is not int:
            many = "several labels (multi-label)" if isinstance(label, list) else f"the label {label!r}"
            raise UserError(f"{where}: {name} has {many}, but must have one integer: set data.labels=none")
    if unlabelled := sorted(set(images) - set(numbers)):
        raise UserError(f"{where} has no label for {unlabelled[0]}: add it, or set data.labels=none")
    return {tfds.Split.TRAIN: [(path, numbers[path]) for path in images]}


def by_tables(folder: pathlib.Path, images: Collection[str], tables: dict[str, pathlib.Path]) -> dict[str, Labelled]:
    """Return splits and classes from tables with the columns filename and label, as in mini-ImageNet.

    Args:
        folder: the folder that contains the tables and the folder `images`.
        images: paths of all images.
        tables: by split.

    Raises:
        UserError: there is no train.csv, a table cannot be read or has no rows, or it lists a file that does not exist
            or has been listed before.
    """
    if tfds.Split.TRAIN not in tables:
        raise UserError(f"{folder} has {', '.join(path.name for path in tables.values())}, but no train.csv")
    named_at: dict[str, str] = {}
    splits: dict[str, Labelled] = {}
    by_composed = {composed(path): path for path in images}
    for split, table in tables.items():
        files = splits[split] = []
        for line, (name, label) in _rows(table):
            path, where = f"{_TABLE_IMAGES}/{name}", f"{table}, line {line}"
            if path not in images:  # a Mac may have written é in another way
                path = by_composed.get(composed(path), path)
            if path not in images:
                raise UserError(f"{where}: there is no image {name} in {folder / _TABLE_IMAGES}")
            if path in named_at:
                raise UserError(f"{where}: {name} is already listed in {named_at[path]}; remove one of the two lines")
            named_at[path] = where
            files.append((path, label))
        if not files:
            raise UserError(f"{table} lists no images: add some or remove it")
    return splits


def _rows(table: pathlib.Path) -> list[tuple[int, Sequence[str]]]:
    """Return the line number and the two cells of each row below the header."""
    rows: list[tuple[int, Sequence[str]]] = []
    try:
        with open_regular(table) as binary, io.TextIOWrapper(binary, "utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            if (header := next(reader, [])) != _TABLE_HEADER:
                raise UserError(f"{table}: the first line must be {','.join(_TABLE_HEADER)}, not {','.join(header)!r}")
            for row in filter(None, reader):
                if len(row) != 2 or not all(row):
                    raise UserError(f"{table}, line {reader.line_num}: must be a file name and a class")
                rows.append((reader.line_num, row))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {table}: {error}") from error
    return rows
