"""One listing of image files, for training and for use."""

import os
import pathlib

import hypothesis
import hypothesis.strategies as st
import pytest

from hvq_jax.data.builders.image_folder import list_images
from hvq_jax.data.listing import ENDINGS, describe, find_images
from hvq_jax.errors import UserError


def touch(folder: pathlib.Path, *paths: str) -> pathlib.Path:
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).touch()
    return folder


def test_every_file_is_an_image_or_counted(tmp_path):
    touch(tmp_path, "a/1.png", "a/2.JPG", "b/3.tif", "b/4.TIF", "b/5.gif", "b/6.bmp", "b/7.webp", "b/8.jpeg")
    touch(
        tmp_path, "a/._1.png", "a/.hidden.jpg", ".ipynb_checkpoints/1.png", "a/.ipynb_checkpoints/1.png", "a/.DS_Store"
    )
    touch(tmp_path, "LICENSE", "x.png/9.png", "notes.a\nb")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    (tmp_path / "b" / "broken.png").symlink_to(tmp_path / "absent")
    (tmp_path / "b" / "itself.png").symlink_to("itself.png")
    (tmp_path / "b" / "itself.tif").symlink_to("itself.tif")
    listing = find_images(tmp_path)
    images = [
        "a/1.png",
        "a/2.JPG",
        "b/5.gif",
        "b/6.bmp",
        "b/7.webp",
        "b/8.jpeg",
        "b/broken.png",
        "b/itself.png",
        "x.png/9.png",
    ]
    assert list(listing.images) == images
    assert listing.folders == ["a", "b", "x.png"]
    assert listing.left_out == {".tif": 3, "hidden": 2, "without ending": 1, "no regular file": 1, "other": 1}
    assert describe(listing.left_out).startswith("3 .tif, 2 hidden, 1 ")


def test_many_kinds_are_cut_short(tmp_path):
    touch(tmp_path, *(f"{n}.{'x' * n}" for n in range(1, 9)))
    assert describe(find_images(tmp_path).left_out).count(",") == 5
    assert describe(find_images(tmp_path).left_out).endswith(", …")


def test_a_table_counts_what_it_leaves_out(tmp_path):
    touch(tmp_path, "images/1.png", "images/2.png", "images/3.png", "images/4.tif", "other.csv")
    (tmp_path / "train.csv").write_text("filename,label\n1.png,a\n")
    assert list_images(tmp_path).left_out == "2 in no table, 1 .csv, 1 .tif"


def test_a_folder_of_other_images_says_what_it_has(tmp_path):
    with pytest.raises(UserError, match=r"has no \.png, .* files, only 2 \.tif: name the folder"):
        list_images(touch(tmp_path, "a/1.tif", "a/2.tif"))


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"


def test_a_class_is_the_same_however_its_accents_are_written(tmp_path):
    files = list_images(touch(tmp_path, f"train/{COMPOSED}/1.png", "train/tea/1.png", f"val/{DECOMPOSED}/2.png"))
    assert files.class_names == (COMPOSED, "tea")
    assert files.splits["validation"] == [(f"val/{DECOMPOSED}/2.png", 0)]


def test_tables_name_classes_and_files_in_either_form(tmp_path):
    touch(tmp_path, f"images/{DECOMPOSED}.png", "images/2.png")
    (tmp_path / "train.csv").write_text(f"filename,label\n{COMPOSED}.png,{DECOMPOSED}\n2.png,{COMPOSED}\n")
    files = list_images(tmp_path)
    assert files.class_names == (COMPOSED,)
    assert files.splits["train"] == [(f"images/{DECOMPOSED}.png", 0), ("images/2.png", 0)]


def test_a_copy_with_the_labels_of_an_earlier_version_is_not_used(tmp_path, monkeypatch):
    touch(tmp_path, f"train/{COMPOSED}/1.png", f"val/{DECOMPOSED}/2.png")
    digest = list_images(tmp_path).digest
    for module in ("classes", "image_folder"):
        monkeypatch.setattr(f"hvq_jax.data.builders.{module}.composed", str)
    assert len(list_images(tmp_path).class_names) == 2
    assert list_images(tmp_path).digest != digest


def test_a_table_that_is_a_named_pipe_is_refused(tmp_path):
    touch(tmp_path, "images/1.png")
    os.mkfifo(tmp_path / "train.csv")
    with pytest.raises(UserError, match="a named pipe, not a regular file"):
        list_images(tmp_path)


NAME = st.binary(min_size=1, max_size=8).filter(lambda name: not set(name) & set(b"/\0") and name not in (b".", b".."))


@hypothesis.settings(deadline=None, max_examples=60)
@hypothesis.given(st.lists(st.tuples(NAME, st.sampled_from([*ENDINGS, ".PNG", ".tif", ""])), max_size=8))
def test_names_may_be_any_bytes(tmp_path_factory, parts):
    folder = tmp_path_factory.mktemp("names")
    names = {os.fsdecode(name + ending.encode()) for name, ending in parts}
    touch(folder, *names)
    listing = find_images(folder)
    expected = sorted(name for name in names if name.lower().endswith(ENDINGS) and not name.startswith("."))
    assert list(listing.images) == expected
    shown = describe(listing.left_out)
    assert shown.isprintable()
    hidden = {name for name in names if name.startswith(".")}
    assert sum(listing.left_out.values()) == len(names - hidden - {*expected}) + sum(
        name.lower().endswith(ENDINGS) for name in hidden
    )
