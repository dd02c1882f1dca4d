import gzip

import hypothesis
import hypothesis.extra.numpy as hnp
import numpy as np
import pytest
from published_files import idx_bytes

from hvq_jax.data.builders.idx import read_idx
from hvq_jax.errors import UserError

CONTENT = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))


@hypothesis.settings(deadline=None, max_examples=50)  # the first example also creates the folder
@hypothesis.given(
    array=hnp.arrays(np.uint8, hnp.array_shapes(max_dims=4, min_side=0, max_side=6)),
    compress=...,
)
def test_reads_what_was_written(tmp_path_factory, array: np.ndarray, compress: bool):
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(array)) if compress else idx_bytes(array))
    read = read_idx(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, array, strict=True)


@pytest.mark.parametrize("size", range(len(CONTENT)))
def test_refuses_a_file_cut_anywhere(tmp_path, size):
    path = tmp_path / "cut"
    path.write_bytes(CONTENT[:size])
    with pytest.raises(UserError, match=str(path)):
        read_idx(path)


def test_refuses_a_compressed_file_cut_anywhere(tmp_path):
    content = gzip.compress(CONTENT)
    path = tmp_path / "cut.gz"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(UserError, match=str(path)):
            read_idx(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (CONTENT + b"\0", "damaged"),
        (b"\x89PNG\r\n\x1a\n" + bytes(40), "not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01" + bytes(4), "0x0d"),  # float32
        (b"\0\0\x08\0", "not an IDX file"),  # no dimension
        (b"\0\0\x08\x02" + b"\xff" * 8 + bytes(10), "damaged"),  # declares 2^64 bytes
        (gzip.compress(CONTENT, mtime=0)[:20] + bytes(30), "cannot read"),
    ],
)
def test_refuses_foreign_files(tmp_path, content, reason):
    path = tmp_path / "foreign"
    path.write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        read_idx(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=str(tmp_path / "absent")):
        read_idx(tmp_path / "absent")
