"""The bytes of an .hvq file: small headers, and one line for whatever is wrong."""

import io

import numpy as np
import pytest
from hypothesis import given, strategies as st

from hvq_jax.codec.file_format import BATCHES, Header, Reader, Writer, batch_for
from hvq_jax.codec.latent_codec import Block
from hvq_jax.errors import UserError

TOKENS, LABELS = np.arange(6, dtype=np.int32).reshape(1, 2, 3, 1), np.array([3], np.int32)


def header(count=1, batch=1, **options):
    given = {"portable": False, "with_labels": True, "fingerprint": b"runs", "environment": b"here"}
    return Header(count, batch, **(given | options))


def content(*, count=1, digits=None):
    writer = Writer(header(count))
    blocks = [writer.block(Block(b"stream%d" % number, digits), TOKENS + number, LABELS) for number in range(count)]
    return writer.header + b"".join(blocks)


def read(data, *, has_digits=False):
    """Read a file as a decoder does; raise UserError or return whether every block is as it was written."""
    reader = Reader(io.BytesIO(data), len(data))
    checks = []
    for number in range(len(reader.header.counts())):
        block, stored = reader.block(has_digits=has_digits)
        checks.append(reader.check(block, stored, TOKENS + number, LABELS))
    reader.check_end()
    return all(checks)


@given(st.integers(1, 2**40), st.sampled_from(BATCHES), st.booleans(), st.booleans())
def test_a_header_returns(count, batch, portable, with_labels):
    written = header(count, batch, portable=portable, with_labels=with_labels)
    data = written.to_bytes()
    assert len(data) <= 16 or count >= 2**28
    size = len(data) + 5 * count
    assert Reader(io.BytesIO(data), size).header == written


def test_a_file_returns_its_blocks():
    for digits in (None, 7):
        data = content(count=3, digits=digits)
        assert read(data, has_digits=digits is not None)
        reader = Reader(io.BytesIO(data), len(data))
        assert reader.block(has_digits=digits is not None)[0] == Block(b"stream0", digits)


def test_every_flipped_bit_and_every_missing_end_is_noticed():
    data = content(count=2, digits=3)
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        assert not noticed_nothing(bytes(flipped))
    for length in range(len(data)):
        assert not noticed_nothing(data[:length])
    assert not noticed_nothing(data + b"\0")


def noticed_nothing(data):
    try:
        return read(data, has_digits=True)
    except UserError:
        return False


def test_swapped_blocks_are_noticed():
    writer = Writer(header(2))
    first, second = (writer.block(Block(b"abc"), TOKENS + number, LABELS) for number in range(2))
    assert read(writer.header + first + second)
    assert not noticed_nothing(writer.header + second + first)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (b"PK\3\4 a zip file", "is not an .hvq file"),
        (b"HVQ\x70" + bytes(20), "is of version 7"),
        (b"HVQ\x10" + bytes(8) + b"\0" + bytes(20), "cannot hold 0 images"),
        (b"HVQ\x10" + bytes(8) + b"\xff\xff\xff\xff\x7f" + bytes(20), "cannot hold 34,359,738,367 images"),
        (b"HVQ\x10" + bytes(8) + b"\xff" * 20, "a number that is too large"),
        (b"HVQ\x10abc", "it ends early"),
    ],
)
def test_what_is_no_file_is_named(data, message):
    with pytest.raises(UserError, match=message):
        read(data)


def test_batches_are_no_larger_than_needed_or_than_memory_holds():
    assert [batch_for(count, 49) for count in (1, 2, 16, 17, 100, 10_000)] == [1, 16, 16, 64, 256, 256]
    assert batch_for(10_000, 2**20) == 1
