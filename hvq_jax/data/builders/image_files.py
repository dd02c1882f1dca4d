"""What is in a folder of images: which files, in which split and of which class."""

import dataclasses
import hashlib
import os
import pathlib

from hvq_jax.data.builders.layouts import LabelledPaths, by_folders, by_tables, find_split_folders, find_tables
from hvq_jax.errors import UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

Stamps = dict[str, tuple[int, int]]  # size in bytes and time of change in ns, by path below the folder


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The images of a folder, in an order that depends on nothing but their names."""

    folder: pathlib.Path
    class_names: tuple[str, ...]  # sorted
    splits: dict[str, list[tuple[str, int]]]  # by split, each file's path below the folder and its label
    digest: str  # of all names, sizes and times of change: with another one, the images may be others


def list_images(folder: pathlib.Path) -> ImageFiles:
    """Lists the PNG, JPEG and WebP files of a folder; hidden files and all others are passed over.

    Files lie in a folder a class, at any depth below it; or directly in `folder`, which makes one class of them. One
    level of folders train, val (or valid, validation) and test may stand above that; without one all is train. Or there
    are `images/` and train.csv, val.csv, test.csv with the columns filename and label, as mini-ImageNet has them.

    Raises:
        UserError: the folder does not exist or cannot be read, has no images, is laid out otherwise, or has a class
            without images.
    """
    if not folder.is_dir():
        raise UserError(f"--config.data.manual_dir={folder} is not a folder: name the one with your images")
    images, folders = _scan(folder)
    if not images:
        raise UserError(f"{folder} has no {', '.join(ENDINGS)} file: name the folder with your images")
    tables = find_tables(folder)
    if tables and not find_split_folders(folders):
        splits = by_tables(folder, images, tables)
        images |= {path.name: _stamp(path.stat()) for path in tables.values()}
    else:
        splits = by_folders(folder, images, folders)
    class_names = _class_names(folder, splits)
    label = {name: number for number, name in enumerate(class_names)}
    return ImageFiles(
        folder=folder,
        class_names=class_names,
        splits={split: [(path, label[name]) for path, name in files] for split, files in splits.items()},
        digest=_digest(images),
    )


def _scan(folder: pathlib.Path) -> tuple[Stamps, list[str]]:
    """All images, and all folders, below the folder, in the order of their names."""
    images: Stamps = {}
    folders: list[str] = []
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(folder.stat()),))]
    while pending:
        above, ancestors = pending.pop()
        for entry in _visible_entries(folder / above):
            path = f"{above}/{entry.name}".removeprefix("/")
            if entry.is_dir():
                identity = _identity(entry.stat())
                if identity in ancestors:
                    raise UserError(f"{folder / path} is a link to a folder above it: remove it")
                folders.append(path)
                pending.append((path, (*ancestors, identity)))
            elif entry.name.lower().endswith(ENDINGS) and (entry.is_file() or entry.is_symlink()):
                images[path] = _stamp_of_entry(entry)
    return dict(sorted(images.items())), sorted(folders)


def _visible_entries(folder: pathlib.Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _stamp(status: os.stat_result) -> tuple[int, int]:
    return status.st_size, status.st_mtime_ns


def _stamp_of_entry(entry: os.DirEntry[str]) -> tuple[int, int]:
    try:
        return _stamp(entry.stat())
    except OSError:  # a link to nowhere: a file that cannot be decoded, like others
        return 0, 0


def _class_names(folder: pathlib.Path, splits: dict[str, LabelledPaths]) -> tuple[str, ...]:
    """The names of the classes of all splits, sorted, so that labels never change between runs."""
    names = tuple(sorted({name for files in splits.values() for _, name in files}))
    for name in names:
        if not name.isprintable() or name != name.strip():  # TFDS keeps them as lines of UTF-8
            raise UserError(
                f"{folder}: the class {name!r} must have a printable name in UTF-8, without spaces around it: rename it"
            )
    return names


def _digest(stamps: Stamps) -> str:
    digest = hashlib.sha256()
    for path, (size, changed) in stamps.items():
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(path), size, changed))
    return digest.hexdigest()
