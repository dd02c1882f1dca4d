"""A zip of images, with their labels in EDM's dataset.json or in the names of its folders. Nothing is extracted."""

import collections
import contextlib
import dataclasses
import pathlib
import zipfile
import zlib
from collections.abc import Generator, Iterator

from hvq_jax.data.builders.classes import Labelled, classify
from hvq_jax.data.builders.collection import EncodedCollection, damage_named, digest_of
from hvq_jax.data.builders.decode_files import Encoded
from hvq_jax.data.builders.layouts import JSON_TABLE, by_folders, by_json
from hvq_jax.data.builders.own_images import OwnImages
from hvq_jax.data.builders.split_names import SPLIT_NAMES
from hvq_jax.data.decode import ImageError
from hvq_jax.data.listing import ENDINGS, describe, ending_of, find_files
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import open_regular
from hvq_jax.registry import check_choice
from hvq_jax.value_range import ValueRange
from hvq_jax.zip_files import check_member, opened_zip

_MOST_IMAGE_BYTES = 1 << 28
_MOST_TABLE_BYTES = 1 << 28
_MAC_FOLDER = "__MACOSX"  # of what Finder adds to a zip


@dataclasses.dataclass(frozen=True)
class ImageZipFile(EncodedCollection):
    """The images in a zip file, called like its members."""

    def files(self, split: str) -> Generator[Encoded, None, None]:
        """Yield the content of each image."""
        with _opened(self.root) as archive:
            for name, _ in self.splits[split]:
                yield _read(archive, name)


class ImageZip(OwnImages):
    """Images in a zip file: laid out like a folder of images, or with a dataset.json as EDM and StyleGAN write it."""

    NEEDED = ("your .zip file", "FILE")

    @staticmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> ImageZipFile:
        """List the members of a zip file, and read the labels; `list_images` has the layouts."""
        check_choice("labels", labels, ("auto", "folder", "none"))
        if path.is_dir():
            raise ArgumentError(f"manual_dir={path}", "a folder; name your .zip file, or choose data.name=image_folder")
        _, listing = find_files(path, (".zip",), "your .zip file")
        with _opened(path) as archive:
            images, left_out = _list_members(archive)
            has_table = labels == "auto" and JSON_TABLE in archive.namelist()
            table = _read_table(archive) if has_table else b""
        if not images:
            others = f", only {describe(left_out)}" if left_out else ""
            raise UserError(f"{path} has no {', '.join(ENDINGS)} members{others}: name the zip of your images")
        if has_table:
            splits = by_json(path, images, table)
            left_out = left_out - collections.Counter({".json": 1})
        else:
            splits = _by_folders(path, images, labels)
        return ImageZipFile(path, classify(splits, str(path)), digest_of(listing.images, labels), left_out)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[zipfile.ZipFile]:
    """Yield an open zip file; errors of the block name it."""
    with damage_named(path, "copy or download it again"), open_regular(path) as file, opened_zip(file) as archive:
        yield archive


def _list_members(archive: zipfile.ZipFile) -> tuple[list[str], collections.Counter[str]]:
    """Return the names of the images, sorted, and the numbers of other members by kind."""
    images: set[str] = set()
    left_out: collections.Counter[str] = collections.Counter()
    for info in archive.infolist():
        name, is_image = info.filename, info.filename.lower().endswith(ENDINGS)
        parts = pathlib.PurePosixPath(name).parts
        if info.is_dir():
            continue
        if any(part.startswith(".") or part == _MAC_FOLDER for part in parts):
            left_out["hidden"] += is_image
        elif not is_image:
            left_out[ending_of(name)] += 1
        elif name in images:
            raise ValueError(f"it has two members called {name}")
        else:
            images.add(name)
    return sorted(images), left_out


def _by_folders(path: pathlib.Path, images: list[str], labels: str) -> dict[str, Labelled]:
    """Return splits and classes from the folders in a zip file, below one folder in which there may be everything."""
    above = _folder_of_all(images)
    below = [name.removeprefix(above) for name in images]
    folders = {str(parent) for name in below for parent in pathlib.PurePosixPath(name).parents} - {"."}
    splits = by_folders(path / above, below, sorted(folders), labels)
    return {split: [(above + name, label) for name, label in files] for split, files in splits.items()}


def _folder_of_all(images: list[str]) -> str:
    """Return the folder "pets/" of images that are all below it, in folders of their own; "" if there is none.

    >>> _folder_of_all(["pets/cat/1.png", "pets/dog/2.png"]), _folder_of_all(["cat/1.png", "cat/2.png"])
    ('pets/', '')
    """
    top, *others = {name.split("/")[0] for name in images}
    is_only_folder = not others and top.lower() not in SPLIT_NAMES and all(name.count("/") > 1 for name in images)
    return f"{top}/" if is_only_folder else ""


def _read(archive: zipfile.ZipFile, name: str) -> Encoded:
    """Return the content of an image, or why it cannot be read."""
    info = archive.getinfo(name)
    if info.file_size > _MOST_IMAGE_BYTES:
        return ImageError(f"it has {info.file_size:,} bytes, too many for an image")
    try:
        check_member(info)
        return archive.read(info)
    except (ValueError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        return ImageError(" ".join(str(error).split()) or type(error).__name__)


def _read_table(archive: zipfile.ZipFile) -> bytes:
    info = archive.getinfo(JSON_TABLE)
    check_member(info)
    if info.file_size > _MOST_TABLE_BYTES:
        raise ValueError(f"{JSON_TABLE} has {info.file_size:,} bytes, too many")
    return archive.read(info)
