"""Tar files as WebDataset writes them."""

import gzip
import io
import json
import os
import tarfile

import pytest
from own_files import everything, images, load, nothing_prepared, one_line, png

IMAGES = images(6)
FILES = [png(image) for image in IMAGES]
LABELS = [row % 3 for row in range(6)]


def write_members(path, members):
    """Write members, pairs of a name and its content or its description."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
            if isinstance(content, bytes):
                info.size = len(content)
            tar.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return path


def samples(first=0, last=6, kind="cls", label=lambda number: str(number).encode(), prefix=""):
    for row in range(first, last):
        yield f"{prefix}{row:04d}.png", FILES[row]
        yield f"{prefix}{row:04d}.{kind}", label(LABELS[row])


def field(**values):
    return lambda number: json.dumps({"caption": "a cat", **{k: v(number) for k, v in values.items()}}).encode()


def read(path, **options):
    return load("image_tar", path, **{"image_size": 8, **options})


def expected(name, first=0, last=6, prefix=""):
    return {f"{name}/{prefix}{row:04d}.png": (IMAGES[row].tobytes(), LABELS[row]) for row in range(first, last)}


def number_or_cat(number: int) -> bytes:
    return b"cat" if number == 2 else b"%d" % number


def same(number):
    return number


@pytest.mark.parametrize(
    ("kind", "label"),
    [
        ("cls", lambda number: b"%d\n" % number),
        ("json", field(label=same)),
        ("json", field(cls=same)),
        ("json", field(label=lambda number: "abc"[number])),
        ("CLS", lambda number: b"abc"[number : number + 1]),
    ],
)
@pytest.mark.parametrize("prefix", ["", "folder/with.dots/"])
def test_members_that_are_called_alike_are_a_sample(tmp_path, kind, label, prefix):
    dataset = read(write_members(tmp_path / "a.tar", samples(kind=kind, label=label, prefix=prefix)))
    assert everything(dataset) == expected("a.tar", prefix=prefix)
    assert dataset.class_names in (("0", "1", "2"), ("a", "b", "c"))
    assert dataset.left_out == ""


def test_shards_are_read_in_order_with_the_splits_in_their_names(tmp_path):
    write_members(tmp_path / "in" / "pets-train-000000.tar", samples(0, 2))
    write_members(tmp_path / "in" / "pets-train-000001.tar", samples(2, 4))
    write_members(tmp_path / "in" / "pets-val-000000.tar", samples(4, 6))
    dataset = read(tmp_path / "in")
    found = expected("pets-train-000000.tar", 0, 2) | expected("pets-train-000001.tar", 2, 4)
    assert everything(dataset) == found | expected("pets-val-000000.tar", 4, 6)
    assert dataset.carved == ("test",)


def test_the_order_of_members_does_not_matter(tmp_path):
    members = sorted(samples(), key=lambda member: (member[0].endswith("png"), member[0]))
    assert everything(read(write_members(tmp_path / "a.tar", members))) == expected("a.tar")


def test_other_members_are_counted_and_a_cls_is_preferred(tmp_path):
    link, folder = tarfile.TarInfo("9999.png"), tarfile.TarInfo("folder")
    link.type, link.linkname, folder.type = tarfile.SYMTYPE, "/etc/passwd", tarfile.DIRTYPE
    others = [("", link), ("", folder), ("0000.seg.png", FILES[1]), ("0000.txt", b"a cat"), (".hidden.png", FILES[0])]
    others += [("README", b""), ("0000.json", json.dumps({"label": 2}).encode())]
    dataset = read(write_members(tmp_path / "a.tar", [*samples(), *others]))
    assert everything(dataset) == expected("a.tar")
    kinds = {"1 no regular file", "1 .seg.png", "1 .txt", "1 hidden", "1 without ending"}
    assert set(dataset.left_out.split(", ")) == kinds


def test_labels_are_those_of_a_field_or_none(tmp_path):
    label = field(label=lambda number: 0, breed=lambda number: "xyz"[number], boxes=lambda number: [1, 2])
    path = write_members(tmp_path / "a.tar", samples(kind="json", label=label))
    assert read(path).class_names == ("0",)
    assert read(path, labels="breed").class_names == ("x", "y", "z")
    dataset = read(path, labels="none")
    assert (dataset.class_names, dataset.left_out) == (("image",), "6 .json")
    with one_line("^labels=folder: .*0000.json has no such field, only caption, label, breed, boxes"):
        read(path, labels="folder")
    with one_line("0000.json: boxes has several labels"):
        read(path, labels="boxes")
    captions = write_members(tmp_path / "b.tar", samples(kind="json", label=field()))
    assert read(captions).class_names == ("image",)


@pytest.mark.parametrize("tar_format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_names_may_be_long(tmp_path, tar_format, monkeypatch):
    prefix = "a" * 90 + "/" + "b" * 60 + "/"
    monkeypatch.setattr(tarfile.TarFile, "format", tar_format)
    assert everything(read(write_members(tmp_path / "a.tar", samples(prefix=prefix)))) == expected(
        "a.tar", prefix=prefix
    )


def test_a_file_that_changes_is_prepared_again(tmp_path):
    path = write_members(tmp_path / "a.tar", samples())
    first = read(path)
    assert read(path).fingerprint() == first.fingerprint()
    write_members(path, samples(1, 6))
    assert len(everything(read(path))) == 5


BAD = {
    "an image without label": ([*samples(0, 5), ("0005.png", FILES[5])], "a.tar/0005.png has no label, but others"),
    "a label without image": ([*samples(), ("0009.cls", b"1")], "0009.cls has no image: add one of the same name"),
    "two images": ([*samples(), ("0001.jpg", FILES[1])], "0001.png and 0001.jpg are two images of one sample"),
    "the same member twice": ([*samples(), *samples(1, 2)], "0001.png and 0001.png are two images of one sample"),
    "no images": ([("a.txt", b"")], " has no image, only 1 .txt"),
    "no members": ([], " has no image, only nothing"),
    "an empty label": (samples(label=lambda number: b""), "0000.cls is empty: write the number of a class"),
    "several kinds": (samples(label=number_or_cat), "one label is the text 'cat', another the number 0"),
    "a negative label": (samples(label=lambda number: b"-2"), "0000.png has the label -2, out of range"),
    "a huge label": (samples(label=lambda number: b"1000000"), "the label 1000000 is too large for a class"),
    "bad names": (samples(label=lambda number: b"a\nb"), "must have a printable UTF-8 name"),
    "bad json": (samples(kind="json", label=lambda number: b"{"), "0000.json cannot be read as JSON"),
    "deep json": (samples(kind="json", label=lambda number: b"[" * 99_999), "0000.json cannot be read as JSON"),
    "other json": (samples(kind="json", label=lambda number: b"3"), '0000.json must be an object such as {"label": 3}'),
    "numbers": (
        samples(kind="json", label=field(label=lambda number: 0.5)),
        "label must be an integer or a string, not",
    ),
    "several labels": (samples(kind="json", label=field(label=lambda number: [1, 2])), "several labels .multi-label"),
    "a long label": (samples(label=lambda number: bytes(2_000_000)), "0000.cls has 2,000,000 bytes, too many"),
    "a corrupt image": (
        [*samples(0, 5), ("0005.png", FILES[5][:60]), ("0005.cls", b"2")],
        "/0005.png: image file is truncated; .*skip",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_tar_files_are_one_line(tmp_path, name):
    members, reason = BAD[name]
    path = write_members(tmp_path / "a.tar", members)
    with one_line(f"{path}.*{reason}"):
        read(path)
    assert nothing_prepared(path)


def whole(tmp_path) -> bytes:
    return write_members(tmp_path / "whole.tar", samples()).read_bytes()


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1024, 2048, 12 * 512])
def test_files_that_are_cut_off_are_one_line(tmp_path, kept):
    path = tmp_path / "a.tar"
    path.write_bytes(whole(tmp_path)[:kept])
    with one_line(f"{path} cannot be read"):
        read(path)


def replaced(content: bytes, place: int, new: bytes) -> bytes:
    return content[:place] + new + content[place + len(new) :]


# The third member begins at byte 2048: two blocks for each before, a header and its content.
DAMAGED = {
    "a header": (lambda content: replaced(content, 2048, b"\xff"), "damaged or cut off at byte 2,048"),
    "another file behind": (lambda content: content + content, "another file follows behind its end"),
    "compressed": (gzip.compress, "it is compressed; unpack it with gunzip"),
    "no tar": (lambda content: FILES[0] * 9, "copy or download it again"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_are_one_line_and_no_member_is_lost(tmp_path, name):
    damage, reason = DAMAGED[name]
    path = tmp_path / "a.tar"
    path.write_bytes(damage(whole(tmp_path)))
    with one_line(f"{path} cannot be read.*{reason}"):
        read(path)


@pytest.mark.parametrize("size", [-512, -1024, 10**6, 2**62])
def test_sizes_that_make_no_sense_are_one_line(tmp_path, size):
    info = tarfile.TarInfo("0001.png")
    info.size = size
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + whole(tmp_path))
    with one_line(f"{path} cannot be read"):
        read(path)


def test_a_header_that_declares_a_huge_name_takes_no_memory(tmp_path):
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 2**40
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + whole(tmp_path))
    with one_line(f"{path} cannot be read .*too long"):
        read(path)


def test_other_paths_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.tar")
    with one_line("a named pipe, not a regular file"):
        read(tmp_path / "pipe.tar")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.tar.gz").touch()
    with one_line("in has no .tar files, only 1 .gz: name your .tar file, or a folder of them"):
        read(tmp_path / "in")
