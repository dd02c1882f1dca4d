"""Zip files that may be damaged or hostile: sizes are checked before anything is read, and nothing is extracted."""

import contextlib
import errno
import os
import zipfile
from collections.abc import Iterator
from typing import BinaryIO

_DEFLATE_RATIO = 1032  # at most so many bytes per compressed one


@contextlib.contextmanager
def opened_zip(file: BinaryIO) -> Iterator[zipfile.ZipFile]:
    """Yield the zip file in an open file, for reading its members by name.

    Raises, also for errors of the block:
        ValueError: it is damaged, or no zip file. The message is one line.
        OSError: the file cannot be read.
    """
    with damage_in_one_line(), zipfile.ZipFile(file) as archive:
        if sum(info.compress_size for info in archive.infolist()) > os.fstat(file.fileno()).st_size:
            raise ValueError("its members overlap or are longer than the file")
        yield archive


@contextlib.contextmanager
def damage_in_one_line() -> Iterator[None]:
    """Turn errors that the block raises at damaged zip or NumPy files into ValueError, with a message of one line."""
    try:
        yield
    except (ValueError, MemoryError):
        raise
    except Exception as error:  # zipfile, zlib, struct and ast have no common class
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # EINVAL is a position in the file that makes no sense
        raise ValueError(" ".join(f"{type(error).__name__}: {error}".split())) from error


def check_member(info: zipfile.ZipInfo) -> None:
    """Raise ValueError if a member is encrypted, or declares more bytes than it can hold."""
    if info.flag_bits & 0x1:
        raise ValueError("it is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError("its compression is neither stored nor deflated")
    ratio = 1 if info.compress_type == zipfile.ZIP_STORED else _DEFLATE_RATIO
    if info.file_size > ratio * info.compress_size:
        raise ValueError(f"its {info.compress_size:,} bytes in the file cannot hold {info.file_size:,}")
