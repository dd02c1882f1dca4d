"""Zip files of images, with EDM's dataset.json or with folders of classes."""

import json
import os
import struct
import zipfile

import pytest
from own_files import everything, images, load, nothing_prepared, one_line, png

IMAGES = images(6)
FILES = [png(image) for image in IMAGES]
EDM = [f"{row // 3:05d}/img{row:08d}.png" for row in range(6)]


def write_zip(path, members, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def named(names):
    return list(zip(names, FILES, strict=False))


def table(labels) -> tuple[str, bytes]:
    return "dataset.json", json.dumps({"labels": labels}).encode()


def read(path, **options):
    return load("image_zip", path, **{"image_size": 8, **options})


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip_of_edm(tmp_path, compression):
    labels = [[name, row % 3] for row, name in enumerate(EDM)]
    path = write_zip(tmp_path / "a.zip", [*named(EDM), table(labels)], compression=compression)
    dataset = read(path)
    assert everything(dataset) == {name: (IMAGES[row].tobytes(), row % 3) for row, name in enumerate(EDM)}
    assert (dataset.class_names, dataset.left_out) == (("0", "1", "2"), "")
    assert read(path, labels="none").class_names == ("image",)
    assert read(path, labels="folder").class_names == ("00000", "00001")
    assert read(write_zip(tmp_path / "b.zip", [*named(EDM), table(None)])).class_names == ("image",)


def test_folders_are_classes_unless_they_may_be_shards(tmp_path):
    names = [f"{'cat' if row % 2 else 'dog'}/{row}.png" for row in range(6)]
    for above in ("", "pets/"):
        members = [*named([above + name for name in names]), (f"{above}LICENSE", b""), ("__MACOSX/cat/._1.png", b"")]
        dataset = read(write_zip(tmp_path / f"{len(above)}.zip", [(f"{above}cat/", b""), *members]))
        assert everything(dataset) == {
            above + name: (IMAGES[row].tobytes(), 1 - row % 2) for row, name in enumerate(names)
        }
        assert dataset.class_names == ("cat", "dog")
        assert dataset.left_out == "1 hidden, 1 without ending"
    with one_line("^labels=auto: the folders 00000 to 00001 of .* may be classes, or shards"):
        read(write_zip(tmp_path / "a.zip", named(EDM)))


def test_folders_may_be_splits(tmp_path):
    names = ["train/b/1.png", "train/a/1.png", "train/a/2.png", "test/a/1.png", "test/b/1.png", "val/b/3.png"]
    dataset = read(write_zip(tmp_path / "a.zip", named(names)))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [3, 1, 2]
    assert everything(dataset)["test/b/1.png"] == (IMAGES[4].tobytes(), 1)


def broken(name, content):
    return [*named([f"{row}.png" for row in range(5)]), (name, content)]


BAD = {
    "no images": ([("a.txt", b"")], "has no .png, .* members, only 1 .txt"),
    "nothing": ([], "has no .png, .* members: name"),
    "labels for other images": ([*named(EDM), table([["../x.png", 1]])], r"there is no image \.\./x\.png"),
    "several labels": ([*named(EDM), table([[name, [0, 1]] for name in EDM])], "has several labels .multi-label"),
    "no label for one": ([*named(EDM), table([[name, 0] for name in EDM[1:]])], f"has no label for {EDM[0]}"),
    "a bad table": ([*named(EDM), ("dataset.json", b"{")], "dataset.json cannot be read"),
    "an image beside folders": (named(["a/1.png", "2.png"]), "2.png lies beside class folders"),
    "a corrupt image": (broken("5.png", FILES[5][:50]), "/5.png: image file is truncated; fix or .* skip"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_zip_files_are_one_line(tmp_path, name):
    members, reason = BAD[name]
    path = write_zip(tmp_path / "a.zip", members)
    with one_line(f"{path}.*{reason}|{reason}.*{path}"):
        read(path)
    assert nothing_prepared(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_two_members_have_is_one_line(tmp_path):
    with one_line("a.zip cannot be read .it has two members called 1.png"):
        read(write_zip(tmp_path / "a.zip", named(["1.png", "1.png"])))


@pytest.mark.parametrize("kept", [0, 10, 300, -1])
def test_files_that_are_cut_off_are_one_line(tmp_path, kept):
    path = write_zip(tmp_path / "a.zip", named(EDM))
    path.write_bytes(path.read_bytes()[:kept])
    with one_line(f"{path} cannot be read"):
        read(path)


def test_damaged_members_are_left_out_only_if_asked_for(tmp_path):
    path = write_zip(tmp_path / "a.zip", named([f"{row}.png" for row in range(6)]))
    content = bytearray(path.read_bytes())
    content[content.index(FILES[1]) + 60] ^= 1
    path.write_bytes(bytes(content))
    with one_line(f"cannot read {path}/1.png: Bad CRC-32 .*; fix or remove it, or skip"):
        read(path)
    dataset = read(path, skip_corrupt=True)
    assert set(everything(dataset)) == {f"{row}.png" for row in range(6)} - {"1.png"}
    assert dataset.left_out == "1 unreadable"


@pytest.mark.parametrize("most", [100, 1 << 28])
def test_members_that_are_or_declare_more_than_an_image_are_one_line(tmp_path, monkeypatch, most):
    monkeypatch.setattr("hvq_jax.data.builders.image_zip._MOST_IMAGE_BYTES", most)
    members = [("0.png", bytes(10_000)), *named(["1.png"])]
    path = write_zip(tmp_path / "a.zip", members, compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    place = content.index(b"PK\1\2") + 24
    content[place : place + 4] = struct.pack("<I", 10_000_000)
    path.write_bytes(bytes(content))
    said = (
        "it has 10,000,000 bytes, too many for an image" if most == 100 else "bytes in the file cannot hold 10,000,000"
    )
    with one_line(f"cannot read {path}/0.png: .*{said}"):
        read(path, labels="none")


def test_other_paths_are_one_line(tmp_path):
    with one_line(f"^manual_dir={tmp_path}: a folder; name your .zip file, or choose data.name=image_folder"):
        read(tmp_path)
    os.mkfifo(tmp_path / "pipe.zip")
    with one_line("a named pipe, not a regular file"):
        read(tmp_path / "pipe.zip")
    with one_line("^labels=label: choose one of auto, folder, none"):
        read(write_zip(tmp_path / "a.zip", named(EDM)), labels="label")
