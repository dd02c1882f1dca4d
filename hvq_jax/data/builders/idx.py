"""Reader for the IDX file format of MNIST: a header of big-endian sizes, then the raw bytes.

Format: http://yann.lecun.com/exdb/mnist/, section "The IDX file format".
"""

import gzip
import math
import os
import pathlib
import struct
import zlib

import numpy as np

from hvq_jax.errors import UserError

_GZIP_MAGIC = b"\x1f\x8b"
_UINT8 = 0x08


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or gzip-compressed.

    Args:
        path: the file; compression is detected from its first bytes, not from its name.

    Returns:
        uint8 array with the shape given in the file's header.

    Raises:
        UserError: the file cannot be read, is not an IDX file, does not hold uint8, or is shorter or longer than its
            header declares.
    """
    path = pathlib.Path(path)
    try:
        content = path.read_bytes()
        if content.startswith(_GZIP_MAGIC):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {path}: {error}; copy or download it again") from error
    return _parse_idx(content, path)


def _parse_idx(content: bytes, path: pathlib.Path) -> np.ndarray:
    if len(content) < 4 or content[:2] != b"\0\0":
        raise UserError(f"{path} is not an IDX file: it must start with two zero bytes and a type")
    dtype, rank = content[2], content[3]
    if dtype != _UINT8:
        raise UserError(f"{path} holds IDX type 0x{dtype:02x}; only unsigned bytes (0x08) are supported")
    header_size = 4 + 4 * rank
    if rank == 0 or len(content) < header_size:
        raise UserError(f"{path} is not an IDX file: its header is truncated")
    shape = struct.unpack(f">{rank}I", content[4:header_size])
    expected, found = math.prod(shape), len(content) - header_size
    if found != expected:
        raise UserError(
            f"{path} is damaged: its header declares {expected} bytes of shape {shape}, "
            f"but {found} follow; copy or download it again"
        )
    return np.frombuffer(content, np.uint8, offset=header_size).reshape(shape)
