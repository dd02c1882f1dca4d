"""Reading .npz files: what NumPy writes is read exactly; anything else is refused before it is allocated."""

import io
import struct
import tracemalloc
import zipfile
from pathlib import Path

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from hvq_jax.errors import UserError
from hvq_jax.files import read_arrays
from hvq_jax.npz import npz_names, read_npz

ARRAYS = {"a": np.arange(24, dtype=np.int32).reshape(2, 3, 4), "names": np.array(["é", "b/1.png"])}
SAVERS = {"stored": np.savez, "deflated": np.savez_compressed}
_MOST_BYTES = 1 << 22  # more than pieces and tables take, and far less than any hostile size here


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def saved(save=np.savez, **arrays) -> bytes:
    file = io.BytesIO()
    save(file, **arrays or ARRAYS)
    return file.getvalue()


def npz(npy: bytes, **options) -> bytes:
    """Return an .npz whose array "a" is `npy`."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("a.npy", npy)
    return file.getvalue()


def npy(shape: str, descr: str = "'<i4'", content: bytes = bytes(24), version: int = 1) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + content


def refusal(path: Path) -> str:
    """Return the message with which the file is refused, without having taken much memory."""
    tracemalloc.start()
    with pytest.raises(UserError, match=f"^{path} cannot be read") as caught:
        read_arrays(path)
    assert tracemalloc.get_traced_memory()[1] < _MOST_BYTES
    tracemalloc.stop()
    assert "\n" not in str(caught.value)
    return str(caught.value)


DTYPES = st.one_of(
    hnp.boolean_dtypes(), hnp.integer_dtypes(), hnp.floating_dtypes(), hnp.byte_string_dtypes(min_len=1)
) | hnp.unicode_string_dtypes(min_len=1)


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(
    array=hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    save=st.sampled_from([*SAVERS.values()]),
    by_column=st.booleans(),
)
def test_what_numpy_writes_is_read_exactly(tmp_path_factory, array, save, by_column):
    given = np.asarray(array, order="F" if by_column else "C")
    path = written(tmp_path_factory.mktemp("npz") / "a.npz", saved(save, a=given, second=ARRAYS["a"]))
    found = read_arrays(path)
    assert list(found) == ["a", "second"]
    assert found["a"].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found["a"], array, strict=array.dtype.isnative)
    found["second"][:] = 0  # may be changed
    with path.open("rb") as file:
        assert list(read_npz(file, ["second", "third"])) == ["second"]
        assert npz_names(file) == ["a", "second"]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data(), save=st.sampled_from([*SAVERS.values()]))
def test_damage_anywhere_gives_the_same_arrays_or_one_line(tmp_path_factory, data, save):
    content = bytearray(saved(save))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for _ in range(data.draw(st.integers(0 if len(content) < len(saved(save)) else 1, 3))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path_factory.mktemp("npz") / "a.npz", bytes(content))
    tracemalloc.start()
    found, message = ARRAYS, f"{path}"
    try:
        found = read_arrays(path)
    except UserError as error:
        message = str(error)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < _MOST_BYTES
    assert message.startswith(str(path))
    assert "\n" not in message
    for name in found.keys() & ARRAYS.keys():  # a name that is damaged is that of another array
        np.testing.assert_array_equal(found[name], ARRAYS[name], strict=True)


SIDES = st.integers(-2, 9) | st.sampled_from([2**31, 2**40, 2**62, 2**63, 2**64, 10**30])


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(
    shape=st.lists(SIDES, max_size=4).map(tuple) | st.just((1,) * 100),
    descr=st.sampled_from(["'<i4'", "'|u1'", "'<U2000000000'", "'|O'", "'<c8'", "[('x', '<f4')]", "'<M8[s]'", "'|V4'"]),
    version=st.integers(1, 4),
)
def test_no_header_takes_more_than_follows_it(tmp_path_factory, shape, descr, version):
    path = written(tmp_path_factory.mktemp("npz") / "a.npz", npz(npy(repr(shape), descr, version=version)))
    items = {"'<i4'": 6, "'|u1'": 24}.get(descr)
    size = int(np.prod(shape, dtype=object))
    if items == size and min(shape, default=1) > 0 and len(shape) < 65 and version < 4:
        assert read_arrays(path)["a"].shape == shape
    else:
        refusal(path)


ENCRYPTED = bytearray(saved())
ENCRYPTED[6] |= 1  # of the first member's own header
ENCRYPTED[ENCRYPTED.index(b"PK\1\2") + 8] |= 1  # of the central directory

STRANGE = bytearray(saved())
STRANGE[8] = STRANGE[STRANGE.index(b"PK\1\2") + 10] = 99

LONG = b"\x93NUMPY\2\0" + struct.pack("<I", 2**32 - 1) + b"{" * 50

HOSTILE = {
    "116 TiB": (npz(npy("(31890000000000,)")), "declares 127,560,000,000,000 bytes"),
    "encrypted": (bytes(ENCRYPTED), "a.npy: it is encrypted"),
    "another compression": (bytes(STRANGE), "compression"),
    "compressed by bzip2": (npz(npy("(6,)"), compression=zipfile.ZIP_BZIP2), "neither stored nor deflated"),
    "a long header": (npz(LONG), "too long"),
    "a header that is a program": (npz(npy("(__import__('os').abort(),)")), "a.npy"),
    "a deep header": (npz(npy("(" * 900 + ")" * 900)), "a.npy"),
    "python objects": (saved(a=np.array([{}])), "neither numbers nor strings"),
    "complex numbers": (saved(a=np.ones(3, complex)), "complex128, neither numbers"),
    "records": (saved(a=np.zeros(3, [("x", "f4")])), "neither numbers nor strings"),
    "no character": (npz(npy("(6,)", "'<U1'", b"\xff" * 24)), "characters that do not exist"),
    "no boolean": (npz(npy("(24,)", "'|b1'", b"\2" * 24)), "neither True nor False"),
    "no npz": (b"\x93NUMPY" + bytes(100), "not a zip file"),
    "text in a zip": (npz(b"hello"), "a.npy"),
    "empty": (b"", "not a zip file"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused(tmp_path, name):
    content, reason = HOSTILE[name]
    assert reason in refusal(written(tmp_path / "a.npz", content))


def test_a_member_that_claims_more_than_it_can_hold_is_refused(tmp_path):
    content = bytearray(npz(npy("(1000000,)", content=bytes(4_000_000)), compression=zipfile.ZIP_DEFLATED))
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = struct.pack("<I", 2**32 - 2)
    assert "cannot hold 4,294,967,294" in refusal(written(tmp_path / "a.npz", bytes(content)))


def test_members_that_overlap_are_refused(tmp_path):
    content = bytearray(npz(npy("(6,)"), compression=zipfile.ZIP_DEFLATED))
    place = content.index(b"PK\1\2") + 20
    content[place : place + 4] = struct.pack("<I", len(content) + 1)
    assert "overlap" in refusal(written(tmp_path / "a.npz", bytes(content)))
