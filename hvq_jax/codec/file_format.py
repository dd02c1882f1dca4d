"""The .hvq file: a header of at most 16 bytes for up to 2^28 latents, and blocks of latents.

    header  "HVQ" · version and flags (1) · fingerprint of the run (4) · digests of the environment (4) · count (varint)
    block   length of the stream (varint) · digits of residuals (1, if the prior has them) · checksum (4) · stream

A varint has 7 bits per byte, the lowest first, and the highest bit set in all but the last. Each checksum covers
everything in front of it, its own stream, and the latents that the stream stands for: so a file that was changed in any
way, or that decodes to other latents on another machine, is noticed.
"""

import dataclasses
import struct
import zlib
from typing import BinaryIO

import numpy as np

from hvq_jax.codec.latent_codec import Block
from hvq_jax.errors import UserError

MAGIC = b"HVQ"
VERSION = 1
BATCHES = (1, 16, 64, 256)  # latents per block
FINGERPRINT_BYTES = ENVIRONMENT_BYTES = 4

_PORTABLE, _WITH_LABELS = 1 << 2, 1 << 3  # the two lowest bits are the place in BATCHES, the four highest the version
_MOST_VARINT_BYTES = 9
_LEAST_BLOCK_BYTES = 5
_CHECKSUM = struct.Struct("<I")


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says about all of its blocks."""

    count: int  # of latents
    batch: int  # latents per block, the last one excepted; of BATCHES
    portable: bool
    with_labels: bool
    fingerprint: bytes
    environment: bytes  # zeros where the file is portable

    def to_bytes(self) -> bytes:
        """Return the header as it is in the file."""
        flags = BATCHES.index(self.batch) | _PORTABLE * self.portable | _WITH_LABELS * self.with_labels
        start = MAGIC + bytes([VERSION << 4 | flags])
        return start + self.fingerprint + self.environment + _varint(self.count)

    def counts(self) -> list[int]:
        """Return the number of latents in each block."""
        whole, rest = divmod(self.count, self.batch)
        return [self.batch] * whole + [rest] * bool(rest)


def batch_for(count: int, num_positions: int) -> int:
    """Return the number of latents per block of a file of `count` latents, each of `num_positions`.

    >>> batch_for(1, 49), batch_for(10_000, 49), batch_for(10_000, 1024)
    (1, 256, 16)
    """
    fitting = [batch for batch in BATCHES if batch == 1 or batch * num_positions <= 1 << 14]  # bounds the memory
    return next((batch for batch in fitting if batch >= count), fitting[-1])


class Writer:
    """The file's bytes, made block by block."""

    def __init__(self, header: Header) -> None:
        self.header = header.to_bytes()
        self._checksum = zlib.crc32(self.header)

    def block(self, block: Block, tokens: np.ndarray, labels: np.ndarray) -> bytes:
        """Return the next block, of these latents, as it is in the file."""
        front = _block_front(block)
        self._checksum = _checksum(self._checksum, front, block.stream, tokens, labels)
        return front + _CHECKSUM.pack(self._checksum) + block.stream


class Reader:
    """A file being read; every method raises UserError where it is damaged, in one line without the file's name."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Read the header of a file of `size` bytes."""
        self._file, self._left = file, size
        start = self._file.read(len(MAGIC) + 1)
        if start[:-1] != MAGIC or len(start) <= len(MAGIC):
            raise UserError("is not an .hvq file" if size else "is empty")
        self._left -= len(start)
        flags = start[-1]
        if flags >> 4 != VERSION:
            raise UserError(f"is of version {flags >> 4} of the format, and this is version {VERSION}: update hvq_jax")
        fingerprint, environment = self._read(FINGERPRINT_BYTES), self._read(ENVIRONMENT_BYTES)
        self.header = Header(
            self._read_varint(),
            BATCHES[flags & 3],
            bool(flags & _PORTABLE),
            bool(flags & _WITH_LABELS),
            fingerprint,
            environment,
        )
        num_blocks = -(-self.header.count // self.header.batch)
        if not 1 <= num_blocks <= self._left // _LEAST_BLOCK_BYTES:
            raise UserError(f"is damaged: its {size:,} bytes cannot hold {self.header.count:,} images")
        self._checksum = zlib.crc32(self.header.to_bytes())

    def block(self, *, has_digits: bool) -> tuple[Block, int]:
        """Return the next block, and its checksum."""
        length = self._read_varint()
        digits = self._read(1)[0] if has_digits else None
        (stored,) = _CHECKSUM.unpack(self._read(_CHECKSUM.size))
        return Block(self._read(length), digits), stored

    def check(self, block: Block, stored: int, tokens: np.ndarray, labels: np.ndarray) -> bool:
        """Return whether the block's latents are those that were written, by its `stored` checksum."""
        self._checksum = _checksum(self._checksum, _block_front(block), block.stream, tokens, labels)
        return self._checksum == stored

    def check_end(self) -> None:
        """Raise UserError unless this is the end of the file."""
        if self._left or self._file.read(1):
            raise UserError("is damaged: something follows its last image")

    def _read(self, count: int) -> bytes:
        content = self._file.read(count) if count <= self._left else b""
        if len(content) < count:
            raise UserError("is damaged: it ends early")
        self._left -= count
        return content

    def _read_varint(self) -> int:
        value = 0
        for place in range(_MOST_VARINT_BYTES):
            byte = self._read(1)[0]
            value |= (byte & 0x7F) << 7 * place
            if not byte & 0x80:
                return value
        raise UserError("is damaged: it states a number that is too large")


def _block_front(block: Block) -> bytes:
    return _varint(len(block.stream)) + (b"" if block.digits is None else bytes([block.digits]))


def _checksum(before: int, front: bytes, stream: bytes, tokens: np.ndarray, labels: np.ndarray) -> int:
    for part in (front, stream, tokens.astype("<i4").tobytes(), labels.astype("<i4").tobytes()):
        before = zlib.crc32(part, before)
    return before


def _varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])
