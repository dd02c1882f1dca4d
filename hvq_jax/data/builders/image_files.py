"""The files, splits and classes of a folder of images."""

import dataclasses
import hashlib
import os
import pathlib

from hvq_jax.data.builders.layouts import LabelledPaths, by_folders, by_tables, find_split_folders, find_tables
from hvq_jax.errors import ArgumentError, UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp")

Stamps = dict[str, tuple[int, int]]  # size in bytes and modification time in ns, by path relative to the folder


@dataclasses.dataclass(frozen=True)
class ImageFiles:
    """The images of a folder, in an order that depends only on their names."""

    folder: pathlib.Path
    class_names: tuple[str, ...]  # sorted
    splits: dict[str, list[tuple[str, int]]]  # by split: path relative to the folder, and label, of each file
    digest: str  # hash of all names, sizes and modification times; if it changes, the images may have changed


def list_images(folder: pathlib.Path) -> ImageFiles:
    """List the PNG, JPEG and WebP files of a folder, ignoring all other files and hidden ones.

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
    images, folders = _scan(folder)
    if not images:
        raise UserError(f"{folder} has no {', '.join(ENDINGS)} files: name the folder with your images")
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
    """Return all images and all folders below `folder`, each sorted by name."""
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
    except OSError:  # a broken link; reported later, like any other file that cannot be decoded
        return 0, 0


def _class_names(folder: pathlib.Path, splits: dict[str, LabelledPaths]) -> tuple[str, ...]:
    """Return the class names of all splits, sorted so that labels never change between runs."""
    names = tuple(sorted({name for files in splits.values() for _, name in files}))
    for name in names:
        if not name.isprintable() or name != name.strip():  # TFDS stores them as lines of UTF-8
            raise UserError(
                f"{folder}: the class {name!r} must have a printable UTF-8 name without surrounding spaces: rename it"
            )
    return names


def _digest(stamps: Stamps) -> str:
    digest = hashlib.sha256()
    for path, (size, changed) in stamps.items():
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(path), size, changed))
    return digest.hexdigest()
