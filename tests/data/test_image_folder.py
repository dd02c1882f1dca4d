import json
import os
import pathlib
import random
import shutil

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from PIL import Image
from published_files import stored

from hvq_jax.data.builders import base
from hvq_jax.data.builders.decode_files import decode_files
from hvq_jax.data.builders.image_folder import ImageFolder, list_images
from hvq_jax.data.decode import ImageError, read_image
from hvq_jax.data.prepare import prepare
from hvq_jax.errors import UserError

SIZE = 8


def write_image(path: pathlib.Path, seed: int = 0, side: int = 12) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)).save(path)
    return path


def write_images(folder: pathlib.Path, *paths: str) -> pathlib.Path:
    """Write a different image to each of the paths."""
    for seed, path in enumerate(paths):
        write_image(folder / path, seed)
    return folder


def write_tables(folder: pathlib.Path, **tables: str) -> pathlib.Path:
    for name, rows in tables.items():
        (folder / f"{name}.csv").write_text("filename,label\n" + "".join(f"{row}\n" for row in rows.split()))
    return folder


def prepared(folder: pathlib.Path, data_dir: pathlib.Path, **options):
    return prepare(ImageFolder, data_dir=data_dir, manual_dir=folder, **{"image_size": SIZE, **options})


def expected(path: pathlib.Path, sides: tuple[int, int] = (SIZE, SIZE), channels: int = 3) -> np.ndarray:
    return read_image(path, sides, channels)[0]


def test_folders_are_classes_and_all_of_them_train(tmp_path):
    folder = write_images(tmp_path / "in", "dog/b.png", "cat/z.JPG", "dog/a.webp", "cat/deep/er/a.jpeg")
    builder = prepared(folder, tmp_path / "out")
    assert list(builder.info.splits) == ["train"]
    assert builder.info.features["label"].names == ["cat", "dog"]
    images, labels = stored(builder, "train")
    np.testing.assert_array_equal(labels, [0, 0, 1, 1])
    for image, path in zip(images, ["cat/deep/er/a.jpeg", "cat/z.JPG", "dog/a.webp", "dog/b.png"], strict=True):
        np.testing.assert_array_equal(image, expected(folder / path), strict=True)


def test_a_flat_folder_is_one_class(tmp_path):
    files = list_images(write_images(tmp_path, "b.png", "a.png"))
    assert files.class_names == ("image",)
    assert files.splits == {"train": [("a.png", 0), ("b.png", 0)]}


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_share_one_list_of_classes(tmp_path, validation):
    folder = write_images(tmp_path, "train/b/1.png", "train/a/1.png", f"{validation}/c/1.png", "test/b/1.png")
    files = list_images(folder)
    assert files.class_names == ("a", "b", "c")
    assert files.splits == {
        "train": [("train/a/1.png", 0), ("train/b/1.png", 1)],
        "validation": [(f"{validation}/c/1.png", 2)],
        "test": [("test/b/1.png", 1)],
    }


def test_split_folders_may_be_flat(tmp_path):
    files = list_images(write_images(tmp_path, "train/1.png", "test/1.png"))
    assert files.class_names == ("image",)
    assert files.splits == {"train": [("train/1.png", 0)], "test": [("test/1.png", 0)]}


def test_tables_say_split_and_class_as_in_mini_imagenet(tmp_path):
    folder = write_images(tmp_path, *(f"images/{name}.jpg" for name in "dbca"), "images/unlisted.jpg")
    write_tables(folder, train="b.jpg,n02 d.jpg,n01 c.jpg,n02", val="a.jpg,n00")
    files = list_images(folder)
    assert files.class_names == ("n00", "n01", "n02")
    assert files.splits == {
        "train": [("images/b.jpg", 2), ("images/d.jpg", 1), ("images/c.jpg", 2)],
        "validation": [("images/a.jpg", 0)],
    }


def test_tables_of_spreadsheets_have_a_mark_and_other_line_ends(tmp_path):
    folder = write_images(tmp_path, "images/a,1.jpg")
    (folder / "train.csv").write_bytes(b'\xef\xbb\xbffilename,label\r\n"a,1.jpg",cat\r\n\r\n')
    assert list_images(folder).splits == {"train": [("images/a,1.jpg", 0)]}


def test_hidden_and_other_files_are_passed_over(tmp_path):
    folder = write_images(tmp_path, "a/1.png", "a/.2.png", ".git/3.png", "b/.cache/4.png", "b/5.png")
    (folder / "a" / "notes.txt").touch()
    (folder / "LICENSE").touch()
    os.mkfifo(folder / "a" / "pipe.png")
    assert list_images(folder).splits == {"train": [("a/1.png", 0), ("b/5.png", 1)]}


def test_names_need_not_be_utf8(tmp_path):
    path = write_image(tmp_path / "in" / "a" / os.fsdecode(b"\xff.png"))
    builder = prepared(path.parent.parent, tmp_path / "out")
    np.testing.assert_array_equal(stored(builder, "train")[0], [expected(path)])


def test_linked_files_and_folders_are_followed_but_not_in_circles(tmp_path):
    elsewhere = write_images(tmp_path / "elsewhere", "1.png", "2.png")
    folder = write_images(tmp_path / "in", "a/1.png")
    (folder / "b").symlink_to(elsewhere)
    (folder / "a" / "2.png").symlink_to(elsewhere / "2.png")
    assert [path for path, _ in list_images(folder).splits["train"]] == ["a/1.png", "a/2.png", "b/1.png", "b/2.png"]
    (folder / "a" / "back").symlink_to(folder)
    with pytest.raises(UserError, match="back is a link to a folder above it"):
        list_images(folder)


@hypothesis.given(st.integers(0, 2**32), st.integers(1, 40))
def test_the_order_is_that_of_the_names_whatever_order_they_are_found_in(tmp_path_factory, seed, count):
    names = [f"{number % 3}/{number}.png" for number in range(count)]
    folder = tmp_path_factory.mktemp("order")
    for name in random.Random(seed).sample(names, count):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    assert [path for path, _ in list_images(folder).splits["train"]] == sorted(names)
    shutil.rmtree(folder)


@pytest.mark.parametrize(("channels", "stored_channels"), [(0, 3), (1, 1), (3, 3)])
def test_channels(tmp_path, channels, stored_channels):
    path = write_image(tmp_path / "in" / "a.png")
    images, _ = stored(prepared(path.parent, tmp_path / "out", channels=channels), "train")
    np.testing.assert_array_equal(images, [expected(path, channels=stored_channels)], strict=True)


def test_images_of_any_size_get_one_size(tmp_path):
    paths = [write_image(tmp_path / "in" / f"{side}.png", side=side) for side in (1, 7, 8, 9, 100)]
    images, _ = stored(prepared(tmp_path / "in", tmp_path / "out"), "train")
    for image, path in zip(images, sorted(paths), strict=True):
        np.testing.assert_array_equal(image, expected(path))


def test_a_copy_is_found_at_once(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "in", "a/1.png", "b/1.png")
    first = prepared(folder, tmp_path / "out")
    monkeypatch.setattr("hvq_jax.data.builders.collection.decode_files", None)  # would be called to prepare again
    again = prepared(folder, tmp_path / "out")
    assert again.data_path == first.data_path
    assert again.info.splits["train"].num_examples == 2
    moved = shutil.move(folder, tmp_path / "moved")
    assert prepared(moved, tmp_path / "out").data_path == first.data_path


def test_images_may_be_wider_than_high(tmp_path):
    paths = [write_image(tmp_path / "in" / f"{side}.png", side=side) for side in (7, 8, 30)]
    builder = prepared(tmp_path / "in", tmp_path / "out", image_size=(4, 10))
    assert builder.info.description == "Images of the folder in, fitted to 4×10 pixels."
    images, _ = stored(builder, "train")
    for image, path in zip(images, sorted(paths), strict=True):
        np.testing.assert_array_equal(image, expected(path, (4, 10)), strict=True)


CHANGES = {
    "added": lambda folder: write_image(folder / "a" / "2.png"),
    "removed": lambda folder: (folder / "a" / "1.png").unlink(),
    "renamed": lambda folder: (folder / "a" / "1.png").rename(folder / "a" / "3.png"),
    "another class": lambda folder: (folder / "a").rename(folder / "c"),
    "another size": lambda folder: write_image(folder / "a" / "1.png", side=30),
    "touched": lambda folder: os.utime(folder / "a" / "1.png", (1, 1)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_folder_is_another_data_set(tmp_path, change):
    folder = write_images(tmp_path / "in", "a/0.png", "a/1.png", "b/1.png")
    before = ImageFolder(data_dir=tmp_path, manual_dir=folder, image_size=SIZE).data_path
    CHANGES[change](folder)
    assert ImageFolder(data_dir=tmp_path, manual_dir=folder, image_size=SIZE).data_path != before


def test_a_changed_table_is_another_data_set(tmp_path):
    folder = write_tables(write_images(tmp_path, "images/1.png", "images/2.png"), train="1.png,a 2.png,b")
    before = list_images(folder).digest
    write_tables(folder, train="1.png,b 2.png,ab")
    assert list_images(folder).digest != before


@pytest.mark.parametrize(
    "options", [{"image_size": 4}, {"image_size": (SIZE, 4)}, {"channels": 1}, {"skip_corrupt": True}]
)
def test_other_options_are_another_data_set(tmp_path, options):
    folder = write_images(tmp_path / "in", "a/1.png")
    usual = {"data_dir": tmp_path, "manual_dir": folder, "image_size": SIZE}
    assert ImageFolder(**usual).data_path != ImageFolder(**usual | options).data_path
    assert ImageFolder(**usual).data_path == ImageFolder(**usual, channels=3).data_path
    assert ImageFolder(**usual).data_path == ImageFolder(**usual | {"image_size": (SIZE, SIZE)}).data_path


def test_several_files_of_records_keep_the_order(tmp_path, monkeypatch):
    monkeypatch.setattr(base, "_SHARD_BYTES", 3 * SIZE * SIZE * 3)
    paths = [f"{number:02}.png" for number in range(10)]
    folder = write_images(tmp_path / "in", *paths)
    for number in (3, 4, 5, 9):  # leaves a file of records empty
        (folder / paths[number]).write_bytes(b"")
    builder = prepared(folder, tmp_path / "out", skip_corrupt=True)
    assert builder.info.splits["train"].shard_lengths == [3, 3, 0, 0]
    images, _ = stored(builder, "train")
    kept = [path for number, path in enumerate(paths) if number not in (3, 4, 5, 9)]
    np.testing.assert_array_equal(images, [expected(folder / path) for path in kept])


def test_what_a_killed_process_left_of_another_copy_is_cleared(tmp_path):
    folder = write_images(tmp_path / "in", "a.png")
    first = pathlib.Path(prepared(folder, tmp_path / "out").data_path)
    left = first.rename(first.with_name("incomplete.ABCDEF_1.0.0"))  # as a killed process leaves it
    write_image(folder / "b.png")
    second = prepared(folder, tmp_path / "out")
    assert not left.exists()
    assert second.info.splits["train"].num_examples == 2


def test_files_are_decoded_in_order_and_not_far_ahead(tmp_path):
    paths = [write_image(tmp_path / f"{number}.png", number) for number in range(6)]
    taken = []

    def endless():
        while True:
            taken.append(paths[len(taken) % 6])
            yield taken[-1]

    images = decode_files(endless(), sides=(SIZE, SIZE), channels=3, num_threads=2)
    for number in range(60):
        np.testing.assert_array_equal(next(images), expected(paths[number % 6]))
        assert len(taken) - number < 40
    images.close()


def test_what_cannot_be_decoded_keeps_its_place(tmp_path):
    good = write_image(tmp_path / "good.png")
    paths = [good, tmp_path / "absent.png", good]
    results = list(decode_files(paths, sides=(SIZE, SIZE), channels=1, num_threads=3))
    assert [type(result) for result in results] == [np.ndarray, ImageError, np.ndarray]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"manual_dir": None}, r"image_folder needs your folder of images: set data\.manual_dir=FOLDER$"),
        (
            {"manual_dir": None, "image_size": 0},
            r"folder of images and the size .*: set data\.manual_dir=FOLDER and for example data\.image_size=64",
        ),
        ({"image_size": 0}, r"image_folder needs the size .* set for example data\.image_size=64"),
        ({"image_size": -1}, r"set for example data\.image_size=64"),
        ({"image_size": (8, 0)}, r"set for example data\.image_size=64"),
        ({"channels": 2}, "^channels=2: image_folder takes 1"),
        ({"channels": 4}, "^channels=4: image_folder takes 1"),
    ],
)
def test_missing_and_bad_options_are_named(tmp_path, options, reason):
    folder = write_images(tmp_path / "in", "a.png")
    with pytest.raises(UserError, match=reason):
        prepare(ImageFolder, **{"data_dir": tmp_path, "manual_dir": folder, "image_size": SIZE} | options)


def test_a_folder_that_is_gone_is_named(tmp_path):
    folder = write_images(tmp_path / "in", "a.png")
    prepared(folder, tmp_path / "out")
    shutil.rmtree(folder)
    with pytest.raises(UserError, match=f"manual_dir={folder}: not a folder"):
        prepared(folder, tmp_path / "out")


@pytest.mark.parametrize(
    ("paths", "folders", "reason"),
    [
        ([], [], "in has no .png, .jpg, .jpeg, .webp, .bmp, .gif files: name"),
        ([], ["a"], "in has no .png"),
        (["a/1.png"], ["b"], "class folder .*/in/b has no images"),
        (["a/1.png", "2.png"], [], "in/2.png lies beside class folders"),
        (["train/a/1.png", "test/1.png"], [], "either all of train, test must have class folders, or none"),
        (["train/a/1.png", "test/a/1.png"], ["test/b"], "class folder .*/in/test/b has no images"),
        (["train/a/1.png"], ["val"], "in/val has no images"),
        (["train/a/1.png", "truck/1.png"], [], r"the split folders train, but also truck/1\.png"),
        (["train/a/1.png", "1.png"], [], r"but also 1\.png"),
        (["test/a/1.png"], [], "but no folder train"),
        (["train/1.png", "val/1.png", "valid/1.png"], [], "val and valid both name the validation split"),
        (["a\nb/1.png"], [], "must have a printable UTF-8 name"),
        ([" a/1.png"], [], "must have a printable UTF-8 name"),
        ([os.fsdecode(b"\xff/1.png")], [], "must have a printable UTF-8 name"),
    ],
)
def test_other_layouts_are_one_line(tmp_path, paths, folders, reason):
    folder = write_images(tmp_path / "in", *paths)
    for name in ["", *folders]:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with pytest.raises(UserError, match=reason) as caught:
        list_images(folder)
    assert "\n" not in str(caught.value)


SHARDS = ["00000/0.png", "00000/1.png", "01000/1000.png"]


@pytest.mark.parametrize(
    "paths", [SHARDS, ["train/00/1.png", "train/01/2.png", "test/00/3.png"], ["part-1/1.png", "part-2/2.png"]]
)
def test_folders_that_may_be_shards_are_classes_only_if_they_are_called_so(tmp_path, paths):
    folder = write_images(tmp_path, *paths)
    with pytest.raises(UserError, match=r"^labels=auto: the folders .* may be classes, or shards .*data\.labels=none"):
        list_images(folder)
    classes = list_images(folder, "folder")
    assert classes.class_names == tuple(sorted({path.split("/")[-2] for path in paths}))
    without = list_images(folder, "none")
    assert without.class_names == ("image",)
    assert [path for path, _ in without.splits["train"]] == [path for path, _ in classes.splits["train"]]
    assert without.digest != classes.digest


@pytest.mark.parametrize("names", [["0", "1", "10"], ["cat", "dog"], ["n01", "n02"], ["00", "cat"], ["2019", "2020"]])
def test_other_folders_are_classes(tmp_path, names):
    files = list_images(write_images(tmp_path, *(f"{name}/1.png" for name in names)))
    assert files.class_names == tuple(sorted(names))


def test_without_labels_images_may_be_anywhere(tmp_path):
    files = list_images(write_images(tmp_path, "1.png", "a/2.png", "b/c/3.png"), "none")
    assert files.splits == {"train": [("1.png", 0), ("a/2.png", 0), ("b/c/3.png", 0)]}
    folder = write_tables(write_images(tmp_path / "tables", "images/1.png", "images/2.png"), train="1.png,a 2.png,b")
    assert list_images(folder, "none").splits == {"train": [("images/1.png", 0), ("images/2.png", 0)]}


def write_json(folder: pathlib.Path, content) -> pathlib.Path:
    (folder / "dataset.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_a_dataset_json_has_the_labels(tmp_path):
    folder = write_images(tmp_path, *SHARDS)
    write_json(folder, {"labels": [[path, number] for number, path in enumerate(SHARDS)]})
    files = list_images(folder)
    assert files.splits == {"train": [(path, number) for number, path in enumerate(SHARDS)]}
    assert (files.class_names, files.left_out) == (("0", "1", "2"), "")
    os.utime(folder / "dataset.json", (1, 1))
    assert list_images(folder).digest != files.digest
    assert list_images(folder, "none").class_names == ("image",)
    assert list_images(folder, "folder").class_names == ("00000", "01000")
    assert list_images(write_json(folder, {"labels": None})).class_names == ("image",)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "dataset.json cannot be read"),
        ("[]", "dataset.json cannot be read .*TypeError"),
        ({}, "dataset.json cannot be read .*KeyError: 'labels'"),
        ({"labels": [1]}, "dataset.json cannot be read"),
        ({"labels": [[SHARDS[0], 0], ["../secret.png", 1]]}, r"there is no image \.\./secret\.png"),
        ({"labels": [[path, [0, 1]] for path in SHARDS]}, "00000/0.png has several labels .multi-label"),
        ({"labels": [[path, "a"] for path in SHARDS]}, "00000/0.png has the label 'a', but must have one integer"),
        ({"labels": [[path, -1 - len(path)] for path in SHARDS]}, "00000/0.png has the label -12, out of range"),
        ({"labels": [[path, 10**9] for path in SHARDS]}, "label 1000000000 is too large for a class"),
        ({"labels": [[path, 0] for path in SHARDS[1:]]}, "has no label for 00000/0.png"),
        ({"labels": [[path, 0] for path in SHARDS[:2] * 2]}, "an image has two labels"),
    ],
)
def test_a_bad_dataset_json_is_one_line(tmp_path, content, reason):
    folder = write_json(write_images(tmp_path, *SHARDS), content)
    with pytest.raises(UserError, match=reason) as caught:
        list_images(folder)
    assert "\n" not in str(caught.value)


def test_other_places_of_labels_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"^labels=column: choose one of auto, folder, none$"):
        list_images(write_images(tmp_path, "a.png"), "column")


@pytest.mark.parametrize(
    ("tables", "reason"),
    [
        ({"train": "1.png,a 3.png,b"}, r"train\.csv, line 3: there is no image 3\.png in .*/images"),
        ({"train": "../train.csv,a"}, r"line 2: there is no image \.\./train\.csv"),
        ({"train": "../outside.png,a"}, r"line 2: there is no image \.\./outside\.png"),
        ({"train": "1.png,a 2.png,b 1.png,a"}, r"line 4: 1\.png is already listed in .*train\.csv, line 2"),
        (
            {"train": "1.png,a", "test": "1.png,a"},
            r"test\.csv, line 2: 1\.png is already listed in .*train\.csv, line 2",
        ),
        ({"train": "1.png,a", "val": "", "test": "2.png,a"}, r"val\.csv lists no images"),
        ({"train": "1.png"}, r"train\.csv, line 2: must be a file name and a class"),
        ({"train": "1.png,"}, r"train\.csv, line 2: must be a file name and a class"),
        ({"train": "1.png,a,b"}, r"train\.csv, line 2: must be a file name and a class"),
        ({"val": "1.png,a", "test": "2.png,a"}, r"has val\.csv, test\.csv, but no train\.csv"),
        ({"train": "1.png,a", "val": "2.png,a", "valid": "2.png,a"}, r"val\.csv and valid\.csv both name"),
    ],
)
def test_bad_tables_are_one_line(tmp_path, tables, reason):
    folder = write_tables(write_images(tmp_path / "in", "images/1.png", "images/2.png"), **tables)
    write_image(folder / "outside.png")
    with pytest.raises(UserError, match=reason) as caught:
        list_images(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "first line must be filename,label, not ''"),
        (b"1.png,a\n", "first line must be filename,label, not '1.png,a'"),
        (b"label,filename\na,1.png\n", "first line must be"),
        (b"filename,label\n1.png,\xff\n", "cannot read .*train.csv"),
        (b"filename,label\n1.png,\0\n", "must have a printable UTF-8 name|cannot read"),
    ],
)
def test_other_files_are_no_tables(tmp_path, content, reason):
    folder = write_images(tmp_path, "images/1.png")
    (folder / "train.csv").write_bytes(content)
    with pytest.raises(UserError, match=reason) as caught:
        list_images(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
