"""Layouts of a folder of images: where the split and the class of each file come from.

All paths are strings relative to the folder, with "/" as the separator.
"""

import csv
import io
import pathlib
import unicodedata
from collections.abc import Collection, Sequence

import tensorflow_datasets as tfds

from hvq_jax.errors import UserError
from hvq_jax.files import open_regular

LabelledPaths = list[tuple[str, str]]  # path and class name

ONLY_CLASS = "image"  # the class name if there are no class folders

_SPLITS = {
    "train": tfds.Split.TRAIN,
    "val": tfds.Split.VALIDATION,
    "valid": tfds.Split.VALIDATION,
    "validation": tfds.Split.VALIDATION,
    "test": tfds.Split.TEST,
}
_TABLE_HEADER = ["filename", "label"]
_TABLE_IMAGES = "images"  # the folder that contains the files named in a table


def find_split_folders(folders: Collection[str]) -> dict[str, str]:
    """Return the top-level folders that are named after a split, by split."""
    return _by_split(folders)


def find_tables(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the tables train.csv, val.csv and test.csv that exist in a folder, by split."""
    names = _by_split([path.name for path in folder.glob("*.csv")], ending=".csv")
    return {split: folder / name for split, name in names.items()}


def _by_split(names: Collection[str], ending: str = "") -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(names):
        split = _SPLITS.get(name.lower().removesuffix(ending))
        if split is not None and found.setdefault(split, name) != name:
            raise UserError(f"{found[split]} and {name} both name the {split} split: merge them")
    return {split: found[split] for split in dict.fromkeys(_SPLITS.values()) if split in found}


def by_folders(folder: pathlib.Path, images: Collection[str], folders: Collection[str]) -> dict[str, LabelledPaths]:
    """Return splits and classes from folder names: one folder per class, with or without split folders above.

    Args:
        folder: the folder that all paths are relative to, for error messages.
        images: paths of all images.
        folders: paths of all folders.

    Raises:
        UserError: a split or class folder has no images, or images lie beside such folders.
    """
    roots = find_split_folders(folders)
    if not roots:
        return {tfds.Split.TRAIN: _classes(folder, images, folders)}
    beside = [path for path in images if path.split("/")[0] not in roots.values()]
    if beside or tfds.Split.TRAIN not in roots:
        problem = f"also {beside[0]}" if beside else "no folder train"
        raise UserError(
            f"{folder} has the split folders {', '.join(roots.values())}, but {problem}: move all images into "
            "folders train, val and test, including classes with one of these names"
        )
    splits = {
        split: _classes(folder / root, _below(root, images), _below(root, folders)) for split, root in roots.items()
    }
    if len({all("/" not in path for path, _ in files) for files in splits.values()}) > 1:
        raise UserError(f"{folder}: either all of {', '.join(roots.values())} must have class folders, or none")
    return {split: [(f"{roots[split]}/{path}", name) for path, name in files] for split, files in splits.items()}


def _below(root: str, paths: Collection[str]) -> list[str]:
    """Return the paths below the folder `root`, relative to it."""
    return [path.removeprefix(f"{root}/") for path in paths if path.startswith(f"{root}/")]


def _classes(folder: pathlib.Path, images: Collection[str], folders: Collection[str]) -> LabelledPaths:
    if not images:
        raise UserError(f"{folder} has no images: add some or remove it")
    loose = [path for path in images if "/" not in path]
    if len(loose) == len(images):
        return [(path, ONLY_CLASS) for path in images]
    if loose:
        raise UserError(f"{folder / loose[0]} lies beside class folders: move it into one of them")
    files = [(path, path.split("/")[0]) for path in images]
    empty = {name for name in folders if "/" not in name} - {name for _, name in files}
    if empty:
        raise UserError(f"the class folder {folder / min(empty)} has no images: add some or remove it")
    return files


def by_tables(
    folder: pathlib.Path, images: Collection[str], tables: dict[str, pathlib.Path]
) -> dict[str, LabelledPaths]:
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
    splits: dict[str, LabelledPaths] = {}
    composed = {unicodedata.normalize("NFC", path): path for path in images}
    for split, table in tables.items():
        files = splits[split] = []
        for line, (name, label) in _rows(table):
            path, where = f"{_TABLE_IMAGES}/{name}", f"{table}, line {line}"
            if path not in images:  # a Mac may have written é in another way
                path = composed.get(unicodedata.normalize("NFC", path), path)
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
