import gzip
import hashlib
import os
import pickle
import tarfile
import tracemalloc

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from published_files import cifar_rows, labelled_images, python2_pickle, stored, write_tar

from hvq_jax.data.builders.archive import read_members
from hvq_jax.data.builders.cifar import Cifar10, Cifar100
from hvq_jax.data.builders.download import PublishedFile
from hvq_jax.data.builders.pickled_arrays import load_pickled, uint8_array
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError

SHAPE = (32, 32, 3)
BUILDERS = (Cifar10, Cifar100)
PER_MEMBER = 2


def binary_member(builder, images, labels) -> bytes:
    coarse = np.full((len(images), builder.LABEL_BYTES - 1), 19, np.uint8)
    return np.concatenate([coarse, labels[:, np.newaxis], cifar_rows(images)], axis=1).tobytes()


def python_batch(builder, images, labels) -> dict:
    others = {b"coarse_labels": [19] * len(images), b"batch_label": b"training batch", b"filenames": [b"a.png"]}
    return {b"data": cifar_rows(images), builder.PYTHON_LABELS: labels.tolist(), **others}


def python_member(builder, images, labels) -> bytes:
    return python2_pickle(python_batch(builder, images, labels))


def members_of(builder, kind: str) -> dict[str, bytes]:
    """Return two images per member of an archive, made from the member's index."""
    names, write = (
        (builder.BINARY_MEMBERS, binary_member) if kind == "binary" else (builder.PYTHON_MEMBERS, python_member)
    )
    ordered = [*names["train"], *names["test"]]
    return {name: write(builder, *labelled_images(PER_MEMBER, SHAPE, seed)) for seed, name in enumerate(ordered)}


def archive_name(builder, kind: str) -> str:
    return f"{builder.name.replace('cifar', 'cifar-')}-{kind}.tar.gz"


def read(builder, folder):
    return builder(data_dir=folder / "tfds", manual_dir=folder).read_splits(folder / "downloads")


@pytest.fixture(params=["binary", "python"])
def kind(request) -> str:
    return request.param


@pytest.mark.parametrize("builder", BUILDERS)
def test_archives_are_stored_in_order(tmp_path, builder, kind):
    members = members_of(builder, kind)
    write_tar(tmp_path / archive_name(builder, kind), members)
    prepared = prepare(builder, data_dir=tmp_path / "tfds", manual_dir=tmp_path)
    batches = [labelled_images(PER_MEMBER, SHAPE, seed) for seed in range(len(members))]
    for split, part in (("train", batches[:-1]), ("test", batches[-1:])):
        images, labels = stored(prepared, split)
        np.testing.assert_array_equal(images, np.concatenate([images for images, _ in part]), strict=True)
        np.testing.assert_array_equal(labels, np.concatenate([labels for _, labels in part]))


def test_the_classes_of_cifar100_are_the_fine_labels():
    names = Cifar100.CLASS_NAMES
    assert len(set(names)) == 100
    assert list(names) == sorted(names)
    assert [names[0], names[8], names[52], names[99]] == ["apple", "bicycle", "oak_tree", "worm"]


def test_members_in_another_order_make_no_difference(tmp_path, kind):
    members = members_of(Cifar10, kind)
    write_tar(tmp_path / archive_name(Cifar10, kind), dict(reversed(members.items())))
    images = read(Cifar10, tmp_path)["train"].images
    np.testing.assert_array_equal(images[:PER_MEMBER], labelled_images(PER_MEMBER, SHAPE, 0)[0])


@pytest.mark.parametrize("builder", BUILDERS)
def test_the_binary_archive_is_downloaded_and_its_checksum_verified(tmp_path, monkeypatch, builder):
    archive = tmp_path / archive_name(builder, "binary")
    write_tar(archive, members_of(builder, "binary"))
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    monkeypatch.setattr(builder, "BINARY", PublishedFile(archive.as_uri(), digest))
    assert stored(prepare(builder, data_dir=tmp_path / "tfds"), "test")[0].shape == (PER_MEMBER, *SHAPE)
    monkeypatch.setattr(builder, "BINARY", PublishedFile(archive.as_uri(), "0" * 64))
    with pytest.raises(UserError, match=f"{archive.name}.*SHA-256 {digest}"):
        prepare(builder, data_dir=tmp_path / "other")


def test_an_empty_folder_names_both_archives(tmp_path):
    with pytest.raises(UserError, match=r"cifar-100-binary\.tar\.gz or cifar-100-python\.tar\.gz is missing"):
        read(Cifar100, tmp_path)


def test_members_that_would_write_elsewhere_do_not(tmp_path, kind):
    folder = tmp_path / "manual"
    folder.mkdir()
    outside = {name: b"outside" for name in ("../evil", "a/../../evil", f"{tmp_path}/evil")}
    write_tar(folder / archive_name(Cifar10, kind), outside | members_of(Cifar10, kind))
    assert len(read(Cifar10, folder)["train"]) == 5 * PER_MEMBER
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize("type_", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE])
def test_nothing_but_a_plain_file_serves_as_member(tmp_path, kind, type_):
    members = members_of(Cifar10, kind)
    name = list(members)[2]
    secret = tmp_path / "secret"
    secret.write_bytes(members[name])
    special = tarfile.TarInfo(name)
    special.type, special.linkname = type_, str(secret)
    write_tar(tmp_path / archive_name(Cifar10, kind), members | {name: special})
    with pytest.raises(UserError, match=f"{name} is not a regular file"):
        read(Cifar10, tmp_path)


def test_a_member_that_announces_too_much_is_refused_unread(tmp_path, kind, monkeypatch):
    members = members_of(Cifar10, kind)
    write_tar(tmp_path / archive_name(Cifar10, kind), members)
    monkeypatch.setattr("hvq_jax.data.builders.archive._MAX_MEMBER_BYTES", len(members[next(iter(members))]) - 1)
    with pytest.raises(UserError, match="more than any published member"):
        read(Cifar10, tmp_path)


def test_other_archives_are_refused(tmp_path, kind):
    archive = tmp_path / archive_name(Cifar10, kind)
    members = members_of(Cifar10, kind)
    name = list(members)[2]
    write_tar(archive, {key: value for key, value in members.items() if key != name})
    with pytest.raises(UserError, match=f"{archive} has no member {name}"):
        read(Cifar10, tmp_path)
    write_tar(archive, members | {name: members[name][:-1]})
    with pytest.raises(UserError, match=f"{name} in {archive} is damaged"):
        read(Cifar10, tmp_path)


def test_an_archive_cut_or_changed_anywhere_is_refused(tmp_path):
    archive = tmp_path / archive_name(Cifar100, "binary")
    write_tar(archive, members_of(Cifar100, "binary"))
    whole = archive.read_bytes()
    for size in range(0, len(whole), 997):
        archive.write_bytes(whole[:size])
        with pytest.raises(UserError, match=str(archive)):
            read(Cifar100, tmp_path)
    for place in range(100, len(whole), 997):  # after gzip's header, which has the file's name and time
        archive.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=str(archive)):
            read(Cifar100, tmp_path)


def raw_tar(path, *blocks: bytes) -> None:
    """Write a .tar.gz of headers and contents as they are."""
    padded = b"".join(block + bytes(-len(block) % 512) for block in blocks)
    path.write_bytes(gzip.compress(padded + bytes(1024)))


def header(size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return the header of a member that claims `size` bytes, in any number of them."""
    info = tarfile.TarInfo("member")
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


BROKEN = {
    "pax length": (header(12, tarfile.XHDTYPE), b"abc path=xyz", header(0)),
    "pax number": (header(13, tarfile.XHDTYPE), b"13 size=1e999", header(0)),
    "pax text": (header(11, tarfile.XHDTYPE), b"11 path=\xff\xfe", header(0)),
    "huge pax": (header(1 << 40, tarfile.XHDTYPE), b"12 path=name"),
    "huge member": (header(1 << 62), b"content"),
    "negative member": (header(-1024), header(-512)),  # ends where it begins, so that it comes again and again
    "huge name": (header(1 << 50, tarfile.GNUTYPE_LONGNAME), b"name"),
    "many members": (header(0) * 1001,),
}


@pytest.mark.parametrize("name", BROKEN)
def test_headers_that_make_no_sense_are_refused(tmp_path, name):
    archive = tmp_path / archive_name(Cifar10, "binary")
    raw_tar(archive, *BROKEN[name])
    tracemalloc.start()
    with pytest.raises(UserError, match=str(archive)) as caught:
        read(Cifar10, tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert "\n" not in str(caught.value)


def checked(block: bytes) -> bytes:
    """Return a header with the checksum that belongs to its content."""
    blank = block[:148] + b" " * 8 + block[156:512]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data())
def test_damage_to_headers_gives_the_same_content_or_one_line(tmp_path_factory, data):
    block, content = bytearray(header(7)), b"content"
    fields = st.sampled_from([124, 156]).map(lambda start: start + data.draw(st.integers(0, 11 if start == 124 else 0)))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(fields | st.integers(0, 511))
        block[place] = data.draw(st.sampled_from([*b"01234567LKNSVXxgMD\0\x80\xff"]) | st.integers(0, 255))
    archive = tmp_path_factory.mktemp("tar") / "a.tar.gz"
    raw_tar(archive, checked(bytes(block)), content, header(7), content)
    found, message = {"member": content}, f"{archive}"
    tracemalloc.start()
    try:
        found = read_members(archive, ["member"])
    except UserError as error:
        message = str(error)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert str(archive) in message
    assert "\n" not in message
    assert list(found) == ["member"]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path, kind, monkeypatch):
    monkeypatch.setattr("hvq_jax.data.builders.archive._MOST_BYTES", 1 << 16)
    members = members_of(Cifar10, kind) | {"more": bytes(1 << 17)}
    write_tar(tmp_path / archive_name(Cifar10, kind), members)
    with pytest.raises(UserError, match=r"cannot read .*: (it unpacks to more than|a member ends at)"):
        read(Cifar10, tmp_path)


def test_a_named_pipe_is_no_archive(tmp_path, kind):
    os.mkfifo(tmp_path / archive_name(Cifar10, kind))
    with pytest.raises(UserError, match="a named pipe, not a regular file"):
        read(Cifar10, tmp_path)


@pytest.mark.parametrize(("builder", "label"), [(Cifar10, 10), (Cifar100, 100), (Cifar100, 255)])
def test_labels_beyond_the_classes_are_refused(tmp_path, builder, kind, label):
    images, _ = labelled_images(PER_MEMBER, SHAPE, 0)
    write = binary_member if kind == "binary" else python_member
    members = members_of(builder, kind)
    members[next(iter(members))] = write(builder, images, np.full(PER_MEMBER, label, np.uint8))
    write_tar(tmp_path / archive_name(builder, kind), members)
    with pytest.raises(UserError, match=f"train split of {builder.name}: label {label} is out of range"):
        read(builder, tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (b"labels", None, "no list b'labels'"),
        (b"labels", [0, -1], "no list b'labels'"),
        (b"labels", [0, 256], "no list b'labels'"),
        (b"labels", [0, b"1"], "no list b'labels'"),
        (b"labels", [0], "1 labels"),
        (b"data", None, "array of unsigned bytes"),
        (b"data", b"bytes", "array of unsigned bytes"),
        (b"data", np.zeros((2, 3072), np.int8), "array of unsigned bytes"),
        (b"data", np.zeros((2, 1536), np.uint16), "array of unsigned bytes"),
        (b"data", np.zeros((2, 3073), np.uint8), r"\(2, 3073\)"),
        (b"data", np.zeros((2, 3072, 1), np.uint8), r"\(2, 3072, 1\)"),
    ],
)
def test_python_batches_that_hold_something_else_are_refused(tmp_path, key, value, reason):
    batch = python_batch(Cifar10, *labelled_images(PER_MEMBER, SHAPE, 0)) | {key: value}
    if value is None:
        del batch[key]
    members = members_of(Cifar10, "python")
    write_tar(tmp_path / "cifar-10-python.tar.gz", members | {next(iter(members)): python2_pickle(batch)})
    with pytest.raises(UserError, match=reason) as caught:
        read(Cifar10, tmp_path)
    assert f"data_batch_1 in {tmp_path}" in str(caught.value)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_that_numpy_itself_would_make(order):
    array = np.array(labelled_images(2, (3, 4), 0)[0], order=order)
    written_here = python2_pickle({b"data": array})
    assert list(pickle.loads(written_here, encoding="bytes")) == [b"data"]
    np.testing.assert_array_equal(pickle.loads(written_here, encoding="bytes")[b"data"], array, strict=True)
    for content in (written_here, pickle.dumps({b"data": array}, protocol=3)):
        read_here = uint8_array(load_pickled(content, "a file")[b"data"], "a file")
        np.testing.assert_array_equal(read_here, array, strict=True)


class Hostile:
    """An object that runs a given function when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, np.frombuffer, pickle.loads])
def test_no_pickle_runs_anything(tmp_path, protocol, function):
    marker = tmp_path / "evil"
    content = pickle.dumps({b"data": Hostile(function, f"touch {marker}")}, protocol=protocol)
    members = members_of(Cifar10, "python")
    write_tar(tmp_path / "cifar-10-python.tar.gz", members | {next(iter(members)): content})
    with pytest.raises(UserError, match="which no array needs") as caught:
        read(Cifar10, tmp_path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"text", b"\x80\x02.", b"\x80\x02].", b"\x80\xff}.", b"\x80\x02}q", b"P1\n.", b"\x80\x02\x82\x01."),
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo of 2^31 entries
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",  # an array of 2^63 bytes
        b"\x80\x02})" + b"\x85" * 100_000 + b"Ns.",  # a key whose hash takes the whole stack
    ],
)
def test_other_files_are_no_pickles_of_arrays(content):
    with pytest.raises(UserError, match="a file is"):
        load_pickled(content, "a file")


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(data=st.data())
def test_a_damaged_pickle_gives_a_dictionary_or_one_line(data):
    content = bytearray(python2_pickle({b"data": np.zeros((2, 3), np.uint8), b"labels": [1, 2]}))
    for _ in range(data.draw(st.integers(1, 4))):
        opcode = data.draw(
            st.sampled_from([*b"(]}tdlbRcjrqhTXB\x8a\x8b\x8d\x8e\x94\x96\x82\x81\xff"]) | st.integers(0, 255)
        )
        content[data.draw(st.integers(2, len(content) - 1))] = opcode
    tracemalloc.start()
    found, message = {}, "a file"
    try:
        found = load_pickled(bytes(content), "a file")
    except UserError as error:
        message = str(error)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert isinstance(found, dict)
    assert message.startswith("a file")
    assert "\n" not in message


def test_an_array_of_another_size_than_its_shape_is_refused():
    content = python2_pickle({b"data": np.zeros(2, np.uint8)})
    for size in (0, 1, 3, -2):
        side = python2_pickle(size)[2:-1]
        changed = load_pickled(content.replace(b"J\x02\x00\x00\x00", side), "a file")
        with pytest.raises(UserError, match="array of unsigned bytes"):
            uint8_array(changed[b"data"], "a file")
