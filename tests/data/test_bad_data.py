"""Damaged files, full disks, interrupted preparations: a one-line error, and nothing left behind."""

import collections
import contextlib
import io
import os
import pathlib
import resource
import shutil

import numpy as np
import pytest
from PIL import Image
from published_files import raw_png, stored

from hvq_jax.data.builders.arrays import ArraySplit
from hvq_jax.data.builders.image_folder import ImageFolder
from hvq_jax.data.builders.mnist import FashionMnist, Mnist
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError

SIZE = 8
DiskUsage = collections.namedtuple("DiskUsage", "total used free")


def image_bytes(file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)).save(file, file_format)
    return file.getvalue()


# File name, content and the error message.
CORRUPT = {
    "truncated.png": (image_bytes()[:-100], "truncated"),
    "header.jpg": (image_bytes("JPEG")[:30], "."),
    "text.jpg": (b"This is not an image.\n", "not a PNG, JPEG, WebP, BMP or GIF image"),
    "page.webp": (b"<html>404</html>", "not a PNG"),
    "empty.png": (b"", "not a PNG"),
    "bomb.png": (raw_png(100_000, 100_000, 8, 0, [bytes(100_000)]), "pixels"),
}


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    """Three good images, of two classes."""
    for name in ("a/good.png", "b/good.png", "b/zzz.png"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(image_bytes())
    return tmp_path / "in"


def prepare_folder(folder: pathlib.Path, **options):
    return prepare(ImageFolder, data_dir=folder.parent / "out", manual_dir=folder, image_size=SIZE, **options)


def incomplete(data_dir: pathlib.Path) -> list[pathlib.Path]:
    """Return what a preparation leaves behind: records in any folder, and temporary folders."""
    return [*data_dir.rglob("*.array_record*"), *data_dir.rglob("incomplete.*")]


@contextlib.contextmanager
def one_line(match: str):
    with pytest.raises(UserError, match=match) as caught:
        yield
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", CORRUPT)
def test_a_corrupt_image_is_named_and_nothing_is_prepared(folder, name):
    content, reason = CORRUPT[name]
    (folder / "b" / name).write_bytes(content)
    with one_line(f"cannot read {folder}/b/{name}: .*{reason}.*; .* with data\\.skip_corrupt=True"):
        prepare_folder(folder)
    assert not incomplete(folder.parent / "out")


def test_corrupt_images_are_left_out_counted_and_listed(folder, capsys):
    for name, (content, _) in CORRUPT.items():
        (folder / "b" / name).write_bytes(content)
    (folder / "b" / "nowhere.png").symlink_to(folder / "absent.png")
    builder = prepare_folder(folder, skip_corrupt=True)
    images, labels = stored(builder, "train")
    assert images.shape == (3, SIZE, SIZE, 3)
    np.testing.assert_array_equal(labels, [0, 1, 1])
    listing = pathlib.Path(builder.data_path) / "skipped.txt"
    lines = listing.read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == sorted(f"b/{name}" for name in [*CORRUPT, "nowhere.png"])
    shown = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("\r")]
    assert f"skipped 7 files that cannot be read, listed in {listing}:" in shown
    assert [line for line in shown if line in lines] == lines[:5]


def test_nothing_is_listed_where_nothing_is_left_out(folder, capsys):
    builder = prepare_folder(folder, skip_corrupt=True)
    assert not (pathlib.Path(builder.data_path) / "skipped.txt").exists()
    assert "skipped" not in capsys.readouterr().err


def test_a_split_without_a_single_good_image_is_an_error(folder):
    for path in folder.rglob("*.png"):
        path.write_bytes(b"")
    with one_line("none of the 3 images of the train split can be read"):
        prepare_folder(folder, skip_corrupt=True)
    assert not incomplete(folder.parent / "out")


def test_a_file_without_permission_is_named(folder, monkeypatch):
    forbidden = folder / "b" / "good.png"
    really_open = os.open

    def refusing_open(path, *arguments, **options):
        if str(path) == str(forbidden):
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, *arguments, **options)

    monkeypatch.setattr(os, "open", refusing_open)
    for skip_corrupt in (False, True):  # it is not corrupt
        with one_line(f"cannot read {forbidden}: .*Permission denied.*$"):
            prepare_folder(folder, skip_corrupt=skip_corrupt)
        assert not incomplete(folder.parent / "out")


def test_a_folder_without_permission_is_named(folder, monkeypatch):
    def refusing_scandir(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refusing_scandir)
    with one_line(f"cannot read the folder {folder}/?: Permission denied"):
        prepare_folder(folder)


def test_a_data_set_that_cannot_fit_is_refused_before_it_is_written(folder, tiny_manual_dir, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: DiskUsage(2**20, 2**20 - 1000, 1000))
    with one_line(r"image_folder needs 0\.1 MiB in .*, but only 0\.0 MiB are free: set data\.data_dir=DIR"):
        prepare_folder(folder)
    with one_line("fashion_mnist needs"):
        prepare(FashionMnist, data_dir=tmp_path / "out", manual_dir=tiny_manual_dir)
    assert not incomplete(tmp_path / "out")


@contextlib.contextmanager
def disk_that_is_full_after(num_bytes: int):
    """Limit the size of files, so that writing fails as on a full disk, for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("num_bytes", [0, 1000, 70_000])  # the records here take 128 KiB
def test_a_disk_that_fills_is_one_line_and_leaves_no_half_data_set(folder, num_bytes):
    with (
        disk_that_is_full_after(num_bytes),
        one_line(f"cannot prepare image_folder in {folder.parent}/out.*data_dir=DIR"),
    ):
        prepare_folder(folder)
    assert not incomplete(folder.parent / "out")
    assert len(stored(prepare_folder(folder), "train")[0]) == 3


def test_a_disk_that_fills_while_downloading_is_one_line(tmp_path, monkeypatch):
    content = bytes(10_000)
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(Mnist, "BASE_URL", tmp_path.as_uri() + "/")
    said = r"cannot write .*/train-images-idx3-ubyte\.gz \(File too large\): set data\.data_dir=DIR"
    with disk_that_is_full_after(5000), one_line(said):
        prepare(Mnist, data_dir=tmp_path / "out")
    assert not [path for path in (tmp_path / "out" / "downloads").rglob("*") if path.is_file()]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_preparation_leaves_nothing_that_stops_the_next(tmp_path, tiny_manual_dir, monkeypatch, stop):
    def interrupted(split):
        yield split.images[0], 0
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(ArraySplit, "__iter__", interrupted)
        with pytest.raises(stop):
            prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir)
    assert not incomplete(tmp_path)
    assert len(stored(prepare(FashionMnist, data_dir=tmp_path, manual_dir=tiny_manual_dir), "train")[0]) == 30
