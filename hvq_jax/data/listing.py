"""Listing of the image files in a folder: the same for training and for images that are passed through a run."""

import collections
import dataclasses
import os
import pathlib
import stat
from collections.abc import Iterator

from hvq_jax.errors import ArgumentError, UserError

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")  # the formats that `decode_image` reads
_MOST_KINDS = 5  # named of what is left out
_LONGEST_ENDING = 10

Stamps = dict[str, tuple[int, int]]  # size in bytes and modification time in ns, by path relative to the folder


@dataclasses.dataclass(frozen=True)
class Listing:
    """The image files below a folder, at any depth."""

    images: Stamps  # sorted by name; or files of other endings that were asked for
    folders: list[str]  # all folders, sorted by name
    left_out: collections.Counter[str]  # number of other files, by kind: an ending, "hidden", "no regular file"


def find_images(folder: pathlib.Path, endings: tuple[str, ...] = ENDINGS) -> Listing:
    """Find the image files below a folder, following links.

    An image file is a regular file whose name ends in one of `endings`, in lower or upper case. Hidden files and
    folders, whose names start with a dot, are passed over. A broken link counts as a file, so that whoever reads it
    says so.

    Raises:
        UserError: a folder cannot be read, or is a link to one above it.
    """
    images: Stamps = {}
    folders: list[str] = []
    left_out: collections.Counter[str] = collections.Counter()
    pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(folder.stat()),))]
    while pending:
        above, ancestors = pending.pop()
        for entry in _entries(folder / above):
            path = f"{above}/{entry.name}".removeprefix("/")
            is_image = entry.name.lower().endswith(endings)
            if entry.name.startswith("."):
                left_out["hidden"] += is_image
            elif _is_folder(entry):
                identity = _identity(entry.stat())
                if identity in ancestors:
                    raise UserError(f"{folder / path} is a link to a folder above it: remove it")
                folders.append(path)
                pending.append((path, (*ancestors, identity)))
            elif not is_image:
                left_out[ending_of(entry.name)] += 1
            elif (stamp := _stamp_of(entry)) is None:
                left_out["no regular file"] += 1
            else:
                images[path] = stamp
    return Listing(dict(sorted(images.items())), sorted(folders), left_out)


def find_files(path: pathlib.Path, endings: tuple[str, ...], kind: str) -> tuple[pathlib.Path, Listing]:
    """Return a folder, and the files in it that make up a data set: `path` itself, or those below it.

    Args:
        path: a file, whatever its name, or a folder.
        endings: the endings of the files below a folder.
        kind: what the files are, for errors.

    Raises:
        UserError: there is no such file or folder, or no such file in the folder.
    """
    if path.is_dir():
        listing = find_images(path, endings)
        if not listing.images:
            others = f", only {describe(listing.left_out)}" if listing.left_out else ""
            raise UserError(f"{path} has no {', '.join(endings)} files{others}: name {kind}")
        return path, listing
    try:
        status = path.stat()
    except OSError as error:
        raise ArgumentError(f"manual_dir={path}", f"{error.strerror}; name {kind}") from None
    return path.parent, Listing({path.name: stamp(status)}, [], collections.Counter())


def describe(left_out: collections.Counter[str]) -> str:
    """Return the kinds of files that are left out with their numbers, most frequent first, "" where there are none.

    >>> describe(collections.Counter({".tif": 6, "hidden": 1}))
    '6 .tif, 1 hidden'
    """
    ordered = sorted((-count, kind) for kind, count in left_out.items() if count)
    kinds = [f"{-count:,} {kind}" for count, kind in ordered]
    return ", ".join(kinds[:_MOST_KINDS] + ["…"] * (len(kinds) > _MOST_KINDS))


def stamp(status: os.stat_result) -> tuple[int, int]:
    """Return the size and the time that change with a file's content."""
    return status.st_size, status.st_mtime_ns


def _entries(folder: pathlib.Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        raise UserError(f"cannot read the folder {folder}: {error.strerror}") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether this is a folder, or a link to one; False for a link that leads nowhere, as one to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def ending_of(name: str) -> str:
    """Return the ending of a file's name as a kind of file."""
    ending = pathlib.PurePath(name).suffix.lower()
    if not ending:
        return "without ending"
    return ending if ending.isprintable() and len(ending) <= _LONGEST_ENDING else "other"


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _stamp_of(entry: os.DirEntry[str]) -> tuple[int, int] | None:
    """Return the stamp of a file; (0, 0) of a broken link, None if it is no regular file."""
    try:
        status = entry.stat()
    except OSError:
        return 0, 0
    return stamp(status) if stat.S_ISREG(status.st_mode) else None
