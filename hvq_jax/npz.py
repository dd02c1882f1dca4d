"""Reading of .npz and .npy files that may be damaged or hostile: sizes are checked before anything is allocated."""

import contextlib
import dataclasses
import functools
import io
import math
import os
import struct
import zipfile
from collections.abc import Callable, Collection, Generator, Iterator
from typing import IO, BinaryIO

import numpy as np

from hvq_jax.zip_files import check_member, damage_in_one_line, opened_zip

# Format of an .npy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_HEADER_FORMATS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}  # of the header's length, by version
_MOST_HEADER_BYTES = 10_000  # as in NumPy: parsing a longer one may take unbounded time and memory
_KINDS = "biufUS"  # bool, integers, floats and strings; no complex numbers, records, dates or Python objects
_LARGEST_CHARACTER = 0x10FFFF
_PIECE_BYTES = 1 << 20


def read_npz(file: BinaryIO, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, in native byte order, without pickle; of `names` only those that it has.

    Memory is allocated only for what the file can hold: an array's header, the size of its zip member and the size of
    the file must agree.

    Raises:
        ValueError: an array is damaged, encrypted, or neither numbers nor strings. The message is one line.
        OSError: the file cannot be read.
    """
    with opened_zip(file) as archive:
        members = _members(archive)
        read = members if names is None else [name for name in names if name in members]
        return {name: _read_member(archive, members[name]) for name in read}


def npz_names(file: BinaryIO) -> list[str]:
    """Return the names of the arrays of an .npz; raise ValueError or OSError as `read_npz` does."""
    with opened_zip(file) as archive:
        return list(_members(archive))


@dataclasses.dataclass(frozen=True)
class StoredArray:
    """An array in a file, of which memory holds only some rows at a time."""

    shape: tuple[int, ...]
    dtype: np.dtype
    _opened: Callable[[], contextlib.AbstractContextManager[tuple[IO[bytes], "_Header"]]]

    def pieces(self) -> Generator[np.ndarray, None, None]:
        """Yield the array in order, as arrays of some rows `[n, ...]`; raise as `read_npz` does.

        An array whose first axis varies fastest, as MATLAB writes them, is yielded whole.
        """
        with self._opened() as (member, array):
            num_rows = array.shape[0]
            step = num_rows if array.by_column else max(1, _PIECE_BYTES * num_rows // max(array.num_bytes, 1))
            for start in range(0, num_rows, max(step, 1)):
                count = min(step, num_rows - start)
                shape = (count, *array.shape[1:])
                content = _read_bytes(
                    member, math.prod(shape) * array.dtype.itemsize, is_last=start + count == num_rows
                )
                yield _as_array(content, shape, array.by_column, array.dtype)


def stored_arrays(open_file: Callable[[], BinaryIO], names: Collection[str]) -> dict[str, StoredArray]:
    """Return those of the arrays `names` that an .npz has; only their headers are read. Raise as `read_npz` does.

    `open_file` opens the file anew, each time that an array is read.
    """

    @contextlib.contextmanager
    def opened(info: zipfile.ZipInfo) -> Iterator[tuple[IO[bytes], _Header]]:
        with (
            open_file() as file,
            opened_zip(file) as archive,
            _member_named(info),
            _open_member(archive, info) as found,
        ):
            yield found

    arrays = {}
    with open_file() as file, opened_zip(file) as archive:
        members = {name: info for name, info in _members(archive).items() if name in names}
        for name, info in members.items():
            with _member_named(info), _open_member(archive, info) as (_, array):
                arrays[name] = StoredArray(array.shape, array.dtype, functools.partial(opened, info))
    return arrays


def stored_array(open_file: Callable[[], BinaryIO]) -> StoredArray:
    """Return the array of an .npy, of which only the header is read; like `stored_arrays`."""

    @contextlib.contextmanager
    def opened() -> Iterator[tuple[IO[bytes], _Header]]:
        with open_file() as file, damage_in_one_line():
            yield file, _read_header(file, os.fstat(file.fileno()).st_size)

    with opened() as (_, array):
        return StoredArray(array.shape, array.dtype, opened)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with _member_named(info), _open_member(archive, info) as (member, array):
        return _as_array(_read_bytes(member, array.num_bytes), array.shape, array.by_column, array.dtype)


@contextlib.contextmanager
def _member_named(info: zipfile.ZipInfo) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{info.filename}: {' '.join(str(error).split())}") from error


@contextlib.contextmanager
def _open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[tuple[IO[bytes], "_Header"]]:
    """Yield a member behind its header, and the header."""
    check_member(info)
    with archive.open(info) as member:
        yield member, _read_header(member, info.file_size)


@dataclasses.dataclass(frozen=True)
class _Header:
    """The header of an .npy."""

    shape: tuple[int, ...]
    by_column: bool  # the first axis varies fastest
    dtype: np.dtype

    @property
    def num_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _read_header(member: IO[bytes], file_size: int) -> _Header:
    """Return the header of an .npy of `file_size` bytes, which must be those of the array that it declares."""
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_FORMATS:
        raise ValueError(f"unknown version {version}")
    length = member.read(struct.calcsize(_HEADER_FORMATS[version]))
    (num_bytes,) = struct.unpack(_HEADER_FORMATS[version], length)
    if num_bytes > _MOST_HEADER_BYTES:
        raise ValueError(f"its header of {num_bytes:,} bytes is too long")
    header = io.BytesIO(length + member.read(num_bytes))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    array = _Header(*read(header))
    if array.dtype.kind not in _KINDS or not array.dtype.itemsize:
        raise ValueError(f"it holds {array.dtype}, neither numbers nor strings")
    if min(array.shape, default=0) < 0:
        raise ValueError(f"its header declares the shape {array.shape}")
    if array.num_bytes != (found := file_size - member.tell()):
        raise ValueError(f"its header declares {array.num_bytes:,} bytes of shape {array.shape}, but {found:,} follow")
    return array


def _read_bytes(member: IO[bytes], count: int, *, is_last: bool = True) -> np.ndarray:
    content = np.empty(count, np.uint8)
    filled = 0
    # To the end, where the checksum is verified.
    while piece := member.read(_PIECE_BYTES if is_last else min(_PIECE_BYTES, count - filled)):
        content[filled : filled + len(piece)] = np.frombuffer(piece, np.uint8)
        filled += len(piece)
    if filled != count:
        raise ValueError(f"it ends after {filled:,} of {count:,} bytes")
    return content


def _as_array(content: np.ndarray, shape: tuple[int, ...], by_column: bool, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "b" and content.size and content.max() > 1:
        raise ValueError("a value is neither True nor False")
    if dtype.kind == "U" and content.size and content.view(f"{dtype.byteorder}u4").max() > _LARGEST_CHARACTER:
        raise ValueError("a string has characters that do not exist")
    array = content.view(dtype).reshape(shape, order="F" if by_column else "C")
    return array.astype(dtype.newbyteorder("="), copy=False)
