"""Reading of .npz files that may be damaged or hostile: sizes are checked before anything is allocated."""

import contextlib
import errno
import io
import math
import os
import struct
import zipfile
from collections.abc import Collection, Iterator
from typing import IO, BinaryIO

import numpy as np

# Format of an .npy: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
_HEADER_FORMATS = {(1, 0): "<H", (2, 0): "<I", (3, 0): "<I"}  # of the header's length, by version
_MOST_HEADER_BYTES = 10_000  # as in NumPy: parsing a longer one may take unbounded time and memory
_KINDS = "biufUS"  # bool, integers, floats and strings; no complex numbers, records, dates or Python objects
_LARGEST_CHARACTER = 0x10FFFF
_DEFLATE_RATIO = 1032  # at most so many bytes per compressed one
_PIECE_BYTES = 1 << 20


def read_npz(file: BinaryIO, names: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz, in native byte order, without pickle; of `names` only those that it has.

    Memory is allocated only for what the file can hold: an array's header, the size of its zip member and the size of
    the file must agree.

    Raises:
        ValueError: an array is damaged, encrypted, or neither numbers nor strings. The message is one line.
        OSError: the file cannot be read.
    """
    with _opened(file) as archive:
        members = _members(archive)
        read = members if names is None else [name for name in names if name in members]
        return {name: _read_member(archive, members[name]) for name in read}


def npz_names(file: BinaryIO) -> list[str]:
    """Return the names of the arrays of an .npz; raise ValueError or OSError as `read_npz` does."""
    with _opened(file) as archive:
        return list(_members(archive))


@contextlib.contextmanager
def _opened(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Yield the archive; turn the errors of the block into those of `read_npz`."""
    try:
        with zipfile.ZipFile(file) as archive:
            if sum(info.compress_size for info in archive.infolist()) > os.fstat(file.fileno()).st_size:
                raise ValueError("its members overlap or are longer than the file")
            yield archive
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib and ast have no common class
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL is a position in the file that makes no sense
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in archive.infolist()}


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    try:
        if info.flag_bits & 0x1:
            raise ValueError("it is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError("its compression is neither stored nor deflated")
        ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
        if info.file_size > ratio * info.compress_size:
            raise ValueError(f"its {info.compress_size:,} bytes in the file cannot hold {info.file_size:,}")
        with archive.open(info) as member:
            shape, by_column, dtype = _read_header(member)
            expected, found = math.prod(shape) * dtype.itemsize, info.file_size - member.tell()
            if expected != found:
                raise ValueError(f"its header declares {expected:,} bytes of shape {shape}, but {found:,} follow")
            content = _read_bytes(member, expected)
        return _as_array(content, shape, by_column, dtype)
    except ValueError as error:
        raise ValueError(f"{info.filename}: {' '.join(str(error).split())}") from error


def _read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, whether the first axis varies fastest, and the dtype of an .npy."""
    version = np.lib.format.read_magic(member)
    if version not in _HEADER_FORMATS:
        raise ValueError(f"unknown version {version}")
    length = member.read(struct.calcsize(_HEADER_FORMATS[version]))
    (num_bytes,) = struct.unpack(_HEADER_FORMATS[version], length)
    if num_bytes > _MOST_HEADER_BYTES:
        raise ValueError(f"its header of {num_bytes:,} bytes is too long")
    header = io.BytesIO(length + member.read(num_bytes))
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_column, dtype = read(header)
    if dtype.kind not in _KINDS or not dtype.itemsize:
        raise ValueError(f"it holds {dtype}, neither numbers nor strings")
    if min(shape, default=0) < 0:
        raise ValueError(f"its header declares the shape {shape}")
    return shape, by_column, dtype


def _read_bytes(member: IO[bytes], count: int) -> np.ndarray:
    content = np.empty(count, np.uint8)
    filled = 0
    while piece := member.read(_PIECE_BYTES):  # to the end, where the checksum is verified
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
