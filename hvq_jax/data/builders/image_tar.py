"""Tar files of images and labels, as WebDataset writes them: the members of one sample are called alike.

Nothing is extracted to disk: members are read from where they are in the file.
"""

import collections
import contextlib
import dataclasses
import os
import pathlib
import re
import tarfile
from collections.abc import Generator, Iterator
from typing import BinaryIO

from hvq_jax.data.builders.classes import Labelled, RawLabel, classify
from hvq_jax.data.builders.collection import EncodedCollection, damage_named, digest_of
from hvq_jax.data.builders.decode_files import Encoded
from hvq_jax.data.builders.own_images import OwnImages
from hvq_jax.data.builders.split_names import files_by_split
from hvq_jax.data.listing import ENDINGS, describe, find_files
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import open_regular, parse_json
from hvq_jax.value_range import ValueRange

_MOST_LABEL_BYTES = 1 << 20  # of a .cls or .json
_MOST_HEADER_BYTES = 1 << 20  # of the long name of a member, or what else stands before its content
_BLOCK_BYTES = 512
_PIECE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b"
_INTEGER = re.compile(r"-?[0-9]{1,9}")
_SAMPLE = re.compile(r"(?P<key>(?:.*/)?[^/.]+)\.(?P<kind>[^/]*)")  # as WebDataset divides names
_FIELDS = ("label", "cls", "class")  # of a .json, in this order


@dataclasses.dataclass(frozen=True, slots=True)
class Member:
    """Where the content of a member is in its file."""

    name: str
    start: int
    size: int  # bytes

    def read(self, file: BinaryIO) -> bytes:
        """Return the content; raise ValueError if the file ends before."""
        file.seek(self.start)
        content = file.read(self.size)
        if len(content) < self.size:
            raise ValueError(f"{self.name} ends after {len(content):,} of {self.size:,} bytes")
        return content


@dataclasses.dataclass(slots=True)
class Sample:
    """The members of one key that are read."""

    image: Member | None = None
    label: RawLabel = None
    labelled_by: str = ""  # the member that the label is from


@dataclasses.dataclass(frozen=True)
class ImageMembers(EncodedCollection):
    """The images in tar files; the name of one is its file and its member, "train-000.tar/0017.png"."""

    members: dict[str, list[tuple[str, list[Member]]]]  # by split, labelled or not: each file, and the images in it

    def files(self, split: str) -> Generator[Encoded, None, None]:
        """Yield the content of each image."""
        for name, members in self.members[split]:
            with _opened(self.root / name) as file:
                for member in members:
                    yield member.read(file)


class ImageTar(OwnImages):
    """Images and labels in tar files: 0017.png with 0017.cls or 0017.json, as WebDataset pairs them."""

    NEEDED = ("your .tar files", "FILE_OR_FOLDER")

    @staticmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> ImageMembers:
        """Read the names of all members, and the labels.

        A file, or all files below a folder. Their splits are words of their names, as in "train-000000.tar"; without
        such words, all are of train. A label is the integer of a .cls, or a field of a .json: with `labels`=auto one
        of "label", "cls" and "class".
        """
        folder, listing = find_files(path, (".tar",), "your .tar file, or a folder of them")
        splits = files_by_split(folder, list(listing.images)) if path.is_dir() else {"train": list(listing.images)}
        left_out = collections.Counter(listing.left_out)
        members: dict[str, list[tuple[str, list[Member]]]] = {}
        labelled: dict[str, Labelled] = {}
        for split, names in splits.items():
            members[split], labelled[split] = [], []
            for name in names:
                samples = _read_samples(folder / name, labels, left_out)
                members[split].append((name, [sample.image for sample in samples if sample.image]))
                labelled[split] += [(f"{name}/{sample.image.name}", sample.label) for sample in samples if sample.image]
            if not labelled[split]:
                raise UserError(f"{folder / names[0]} has no image, only {describe(left_out) or 'nothing'}: remove it")
        classified, digest = classify(labelled, str(path)), digest_of(listing.images, labels)
        return ImageMembers(folder, classified, digest, left_out, members)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[BinaryIO]:
    """Yield an open file; errors of the block name it."""
    with damage_named(path, "copy or download it again"), open_regular(path) as file:
        yield file


def _read_samples(path: pathlib.Path, labels: str, left_out: collections.Counter[str]) -> list[Sample]:
    """Return the samples of a tar file, in order; count the members that are not read."""
    samples: dict[str, Sample] = {}
    with _opened(path) as file:
        for found in _members(file):
            member = Member(found.name, found.offset_data, found.size)
            parts = _SAMPLE.fullmatch(found.name)
            kind = parts["kind"].lower() if parts else ""
            if found.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or found.sparse:
                left_out["no regular file"] += not found.isdir()
            elif parts is None:
                left_out["hidden" if pathlib.PurePath(found.name).name.startswith(".") else "without ending"] += 1
            elif f".{kind}" in ENDINGS:
                sample = samples.setdefault(parts["key"], Sample())
                if sample.image:
                    raise UserError(f"{path}: {sample.image.name} and {found.name} are two images of one sample")
                sample.image = member
            elif _has_label(kind, labels):
                sample = samples.setdefault(parts["key"], Sample())
                label = _read_label(member, kind, file, labels, f"{path}: {found.name}")
                if not sample.labelled_by or kind == "cls":  # of both, .cls is meant for it
                    sample.label, sample.labelled_by = label, found.name
            else:
                left_out[f".{kind}"] += 1
    for sample in samples.values():
        if sample.image is None:
            raise UserError(
                f"{path}: {sample.labelled_by} has no image: add one of the same name, or set data.labels=none"
            )
    return list(samples.values())


def _members(file: BinaryIO) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, and check that it is whole; raise an error that is not an OSError if not."""
    if file.read(len(_GZIP)) == _GZIP:
        raise ValueError("it is compressed; unpack it with gunzip")
    file.seek(0)
    num_bytes = os.fstat(file.fileno()).st_size
    with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:  # type: ignore[call-overload]
        end = 0
        while (member := tar.next()) is not None:
            tar.members.clear()  # it would keep them all
            if member.size < 0 or member.offset < end or member.offset_data + member.size > num_bytes:
                raise ValueError(f"{member.name} ends beyond the file, or before it begins")
            end = member.offset_data + member.size
            yield member
        file.seek(tar.offset)  # tarfile takes a damaged header for the end
    mark = file.read(_BLOCK_BYTES)
    if len(mark) < _BLOCK_BYTES or mark.strip(b"\0"):
        raise ValueError(f"it is damaged or cut off at byte {file.tell() - len(mark):,}")
    while piece := file.read(_PIECE_BYTES):
        if piece.strip(b"\0"):
            raise ValueError("another file follows behind its end; divide it in two")


class _Headers:
    """A file of which tarfile reads headers only: none is longer than `_MOST_HEADER_BYTES`, whatever it declares."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def read(self, size: int) -> bytes:
        if size > _MOST_HEADER_BYTES:
            raise ValueError(f"a header of {size:,} bytes is too long")
        return self._file.read(size)


def _has_label(kind: str, labels: str) -> bool:
    """Return whether members that end in `kind` have the labels that are asked for."""
    if labels == "none":
        return False
    return kind == "cls" if labels == "cls" else kind == "json" or (kind == "cls" and labels == "auto")


def _read_label(member: Member, kind: str, file: BinaryIO, labels: str, where: str) -> RawLabel:
    """Return the label in a .cls or .json; None if `labels` is "auto" and there is none."""
    if member.size > _MOST_LABEL_BYTES:
        raise UserError(f"{where} has {member.size:,} bytes, too many for a label")
    content = member.read(file)
    if kind == "cls":
        text = content.decode(errors="replace").strip()
        if not text:
            raise UserError(f"{where} is empty: write the number of a class into it, or set data.labels=none")
        return int(text) if _INTEGER.fullmatch(text) else text
    try:
        fields = parse_json(content)
    except ValueError as error:
        raise UserError(f"{where} cannot be read as JSON ({error}): fix it, or set data.labels=none") from None
    if not isinstance(fields, dict):
        raise UserError(f'{where} must be an object such as {{"label": 3}}: fix it, or set data.labels=none')
    names = _FIELDS if labels == "auto" else (labels,)
    name = next((name for name in names if name in fields), None)
    if name is None and labels != "auto":
        raise ArgumentError(f"labels={labels}", f"{where} has no such field, only {', '.join(fields) or 'none'}")
    value = fields[name] if name is not None else None
    if isinstance(value, list | dict):
        raise UserError(f"{where}: {name} has several labels (multi-label): choose another field, or data.labels=none")
    if not isinstance(value, int | str | None):
        raise UserError(f"{where}: {name} must be an integer or a string, not {value}: set data.labels=none")
    return int(value) if isinstance(value, bool) else value
