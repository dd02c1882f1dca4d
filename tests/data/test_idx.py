import gzip
import os
import struct
import tracemalloc

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest
from published_files import idx_bytes

from hvq_jax.data.builders.idx import read_idx
from hvq_jax.errors import UserError

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
CONTENT = idx_bytes(ARRAY)


@hypothesis.settings(deadline=None, max_examples=50)  # the first example also creates the folder
@hypothesis.given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, min_side=0, max_side=6)),
    compress=...,
)
def test_reads_what_was_written(tmp_path_factory, array: np.ndarray, compress: bool):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compress else idx_bytes(array))
    read = read_idx(path, array.shape[1:])
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array, strict=True)


@pytest.mark.parametrize("size", range(len(CONTENT)))
def test_refuses_a_file_cut_anywhere(tmp_path, size):
    path = tmp_path / "cut"
    path.write_bytes(CONTENT[:size])
    with pytest.raises(UserError, match=str(path)):
        read_idx(path, (3, 4))


def test_refuses_a_compressed_file_cut_anywhere(tmp_path):
    content = gzip.compress(CONTENT)
    path = tmp_path / "cut.gz"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=str(path)):
            read_idx(path, (3, 4))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT + b"\0", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01" + bytes(4), "0x0d"),  # float32
        (b"\0\0\x08\0", "0 axes, expected 3"),
        (b"\0\0\x08\xff" + b"\xff" * 1020 + bytes(10), "255 axes, expected 3"),
        (b"\0\0\x08\3\0\0\0\x02\xff", "header is truncated"),
        (idx_bytes(ARRAY.reshape(2, 4, 3)), r"items of shape \(4, 3\), expected \(3, 4\)"),
        (CONTENT[:4] + b"\xff" * 4 + CONTENT[8:], "51,539,607,540 bytes .*, more than any published file"),
        (gzip.compress(CONTENT, mtime=0)[:20] + bytes(30), "cannot read"),
    ],
)
def test_refuses_foreign_files(tmp_path, content, reason):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_idx(path, (3, 4))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "absent")):
        read_idx(tmp_path / "absent", ())


def test_a_small_file_that_unpacks_to_a_large_one_is_read_no_further_than_its_header_says(tmp_path):
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(CONTENT + bytes(1 << 26), 1))
    tracemalloc.start()
    with pytest.raises(UserError, match=r"declares 24 bytes .* but more than 24 follow"):
        read_idx(path, (3, 4))
    assert tracemalloc.get_traced_memory()[1] < 1 << 21
    tracemalloc.stop()


def test_memory_is_taken_for_what_the_file_holds_not_for_what_it_declares(tmp_path):
    path = tmp_path / "short"
    path.write_bytes(CONTENT[:4] + struct.pack(">I", 1 << 26) + CONTENT[8:])
    tracemalloc.start()
    with pytest.raises(UserError, match=r"declares 805306368 bytes .* but 24 follow"):
        read_idx(path, (3, 4))
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


def test_a_named_pipe_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="a named pipe, not a regular file"):
        read_idx(tmp_path / "pipe", ())


@hypothesis.settings(deadline=None, max_examples=50)
@hypothesis.given(data=st.data(), compress=st.booleans())
def test_damage_anywhere_gives_the_same_header_or_one_line(tmp_path_factory, data, compress):
    content = bytearray(gzip.compress(CONTENT, mtime=0) if compress else CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(content)
    found, message = ARRAY, f"{path}"
    try:
        found = read_idx(path, (3, 4))
    except UserError as error:
        message = str(error)
    assert str(path) in message
    assert "\n" not in message
    assert found.shape == (2, 3, 4)  # a plain file has no checksum of its values
    if compress:
        np.testing.assert_array_equal(found, ARRAY)


def test_a_file_without_permission_need_not_be_copied_again(tmp_path, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "file").write_bytes(CONTENT)
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match=r"Permission denied: .*file'$"):
        read_idx(tmp_path / "file", (3, 4))
