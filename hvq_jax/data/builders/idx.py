"""Reader for the IDX file format of MNIST: a header of big-endian sizes, then the raw bytes.

Format: http://yann.lecun.com/exdb/mnist/, section "The IDX file format".
"""

import contextlib
import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from hvq_jax.errors import UserError
from hvq_jax.files import open_regular, shows_damage

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08
_MOST_BYTES = 1 << 30  # more than any published file; a few bytes can declare far more
_PIECE_BYTES = 1 << 20


def read_idx(path: str | os.PathLike[str], item_shape: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip-compressed.

    The header is checked before the rest is read, and no more is read than it declares.

    Args:
        path: the file; compression is detected from its first bytes, not from its name.
        item_shape: (H, W) for images, () for labels.

    Returns:
        uint8 array [N, *item_shape].

    Raises:
        UserError: the file cannot be read, is not an IDX file, does not hold uint8, holds items of another shape, or is
            shorter or longer than its header declares.
    """
    try:
        with _opened(path) as stream:
            shape = _read_shape(stream, item_shape, path)
            expected = math.prod(shape)
            content = _read_at_most(stream, expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        advice = "; copy or download it again" if shows_damage(error) else ""
        raise UserError(f"cannot read {path}: {error}{advice}") from error
    if len(content) != expected:
        found = len(content) if len(content) < expected else f"more than {expected}"
        raise UserError(
            f"{path} is damaged: its header declares {expected} bytes of shape {shape}, "
            f"but {found} follow; copy or download it again"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


@contextlib.contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    with open_regular(path) as file:
        is_compressed = file.read(len(_GZIP_MAGIC)) == _GZIP_MAGIC
        file.seek(0)
        yield gzip.GzipFile(fileobj=file) if is_compressed else file  # type: ignore[misc]


def _read_shape(stream: BinaryIO, item_shape: tuple[int, ...], path: str | os.PathLike[str]) -> tuple[int, ...]:
    """Return the shape that the header declares, [N, *item_shape]."""
    start = stream.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: it must start with two zero bytes and a type")
    dtype, rank = start[2:]
    if dtype != _UINT8:
        raise UserError(f"{path} holds IDX type 0x{dtype:02x}; only unsigned bytes (0x08) are supported")
    if rank != 1 + len(item_shape):
        raise UserError(f"{path} has {rank} axes, expected {1 + len(item_shape)}")
    sides = stream.read(4 * rank)
    if len(sides) < 4 * rank:
        raise UserError(f"{path} is not an IDX file: its header is truncated")
    shape = struct.unpack(f">{rank}I", sides)
    if shape[1:] != item_shape:
        raise UserError(f"{path} has items of shape {shape[1:]}, expected {item_shape}")
    if math.prod(shape) > _MOST_BYTES:
        raise UserError(f"{path} declares {math.prod(shape):,} bytes of shape {shape}, more than any published file")
    return shape


def _read_at_most(stream: BinaryIO, count: int) -> bytearray:
    """Return the next `count` bytes, fewer at the end, in memory of that size."""
    content = bytearray()
    while piece := stream.read(min(_PIECE_BYTES, count - len(content))):
        content += piece
    return content
