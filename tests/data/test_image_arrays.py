"""Images and labels in .npz and .npy files: read as they are, or refused in one line with nothing prepared."""

import os

import numpy as np
import pytest
from own_files import everything, images, load, nothing_prepared, one_line

from hvq_jax.data.builders.image_arrays import ImageArrays
from hvq_jax.data.streamed import StreamedSplit

IMAGES = images(12)
LABELS = np.arange(12) % 3


def write(path, save=np.savez, **arrays):
    save(path, **arrays)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_like_those_of_medmnist(tmp_path, save):
    parts = {"train": slice(0, 6), "val": slice(6, 9), "test": slice(9, 12)}
    arrays = {f"{name}_images": IMAGES[rows] for name, rows in parts.items()}
    arrays |= {f"{name}_labels": LABELS[rows, np.newaxis].astype(np.uint8) for name, rows in parts.items()}
    dataset = load("image_arrays", write(tmp_path / "a.npz", save, **arrays, note=np.zeros(3)))
    for split, rows in zip((dataset.train, dataset.validation, dataset.test), parts.values(), strict=True):
        np.testing.assert_array_equal(split.items, IMAGES[rows], strict=True)
        np.testing.assert_array_equal(split.labels, LABELS[rows])
    assert dataset.names["validation"].tolist() == [b"val_images/0", b"val_images/1", b"val_images/2"]
    assert dataset.counts == (
        "6 images to train on, 3 for validation, 3 for testing; 8×8×3, 3 classes; left out 1 under another name"
    )


@pytest.mark.parametrize(
    "names",
    [("images", "labels"), ("x", "y"), ("x_train", "y_train"), ("arr_0", "arr_1"), ("train_images", "train_labels")],
)
def test_one_split_is_divided_in_three(tmp_path, names):
    dataset = load("image_arrays", write(tmp_path / "a.npz", **dict(zip(names, (IMAGES, LABELS), strict=True))))
    assert [len(dataset.train), len(dataset.validation), len(dataset.test)] == [10, 1, 1]
    expected = {f"{names[0]}/{row}": (IMAGES[row].tobytes(), LABELS[row]) for row in range(12)}
    assert everything(dataset) == expected


def test_an_npy_is_images_without_classes_and_a_folder_is_arrays_by_name(tmp_path):
    np.save(tmp_path / "faces.npy", IMAGES)
    dataset = load("image_arrays", tmp_path / "faces.npy")
    assert dataset.class_names == ("image",)
    assert {image for image, _ in everything(dataset).values()} == {image.tobytes() for image in IMAGES}
    (tmp_path / "in").mkdir()
    np.save(tmp_path / "in" / "images.npy", np.asfortranarray(IMAGES[..., 0]))
    np.save(tmp_path / "in" / "labels.npy", LABELS)
    np.save(tmp_path / "in" / "class_names.npy", np.array(["bad", "fair", "good"]))
    dataset = load("image_arrays", tmp_path / "in")
    assert dataset.class_names == ("bad", "fair", "good")
    assert everything(dataset) == {f"images/{row}": (IMAGES[row, ..., 0].tobytes(), LABELS[row]) for row in range(12)}


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("value_range", [(0, 1), (-1, 1), None])
def test_floats_become_the_nearest_bytes(tmp_path, dtype, value_range):
    low, high = value_range or (-1, 1)
    floats = (low + (high - low) * (IMAGES.astype(np.float64) / 255)).astype(dtype)
    dataset = load("image_arrays", write(tmp_path / "a.npz", images=floats), value_range=value_range)
    assert {image for image, _ in everything(dataset).values()} == {image.tobytes() for image in IMAGES}


def test_labels_may_be_names_and_may_be_passed_over(tmp_path):
    path = write(tmp_path / "a.npz", images=IMAGES, labels=np.array(["b", "c", "a"])[LABELS])
    assert load("image_arrays", path).class_names == ("a", "b", "c")
    dataset = load("image_arrays", path, labels="none")
    assert dataset.class_names == ("image",)
    assert not dataset.train.labels.any()


def test_sizes_and_channels_may_be_changed_and_more_than_memory_streamed(tmp_path):
    path = write(tmp_path / "a.npz", images=IMAGES)
    dataset = load("image_arrays", path, image_size=4, channels=1, memory_gib=0)
    assert isinstance(dataset.train, StreamedSplit)
    assert dataset.image_shape == (4, 4, 1)
    grey = IMAGES @ [0.299, 0.587, 0.114]
    means = grey.reshape(12, 4, 2, 4, 2).mean((2, 4))
    found = {name: np.frombuffer(image, np.uint8) for name, (image, _) in everything(dataset).items()}
    near = [np.abs(found[f"images/{row}"].reshape(4, 4) - means[row]).mean() for row in range(12)]
    assert max(near) < 20  # another filter, the same image


def test_a_copy_is_found_again_until_the_file_changes(tmp_path, monkeypatch):
    path = write(tmp_path / "a.npz", images=IMAGES)
    first = load("image_arrays", path)
    with monkeypatch.context() as patch:
        patch.setattr("hvq_jax.data.builders.array_collection.ArrayCollection.read", None)  # to prepare it again
        assert load("image_arrays", path).fingerprint() == first.fingerprint()
    write(path, images=IMAGES[::-1])
    os.utime(path, (1, 1))
    assert load("image_arrays", path).fingerprint() != first.fingerprint()


def test_arrays_are_read_in_pieces(tmp_path, monkeypatch):
    monkeypatch.setattr("hvq_jax.npz._PIECE_BYTES", 500)  # two images
    for save in (np.savez, np.savez_compressed):
        path = write(tmp_path / f"{save.__name__}.npz", save, images=IMAGES)
        (array,) = ImageArrays.collect(path, "auto", None).arrays.values()
        pieces = list(array.pieces())
        assert [len(piece) for piece in pieces] == [2] * 6
        np.testing.assert_array_equal(np.concatenate(pieces), IMAGES)


BAD = {
    "pickled objects": ({"images": np.array([{"a": 1}, None])}, "it holds object, neither numbers nor strings"),
    "pickled labels": ({"images": IMAGES, "labels": np.array([0, "a"] * 6, object)}, "it holds object, neither"),
    "other integers": ({"images": IMAGES.astype(np.int32)}, "images must be uint8, or float .*, not int32: convert it"),
    "rows of pixels": ({"images": IMAGES.reshape(12, -1)}, r"its shape is \(12, 192\): reshape it"),
    "channels first": ({"images": IMAGES.transpose(0, 3, 1, 2)}, r"transpose it with \(0, 2, 3, 1\)"),
    "four channels": ({"images": images(3, channels=4)}, r"C = 1 or 3; its shape is \(3, 8, 8, 4\)"),
    "volumes": ({"images": np.zeros((2, 8, 8, 8, 1), np.uint8)}, r"must be \[N, H, W\], or .*: reshape it"),
    "no images": ({"images": IMAGES[:0]}, r"images is empty: its shape is \(0, 8, 8, 3\)"),
    "an unclear range": (
        {"images": IMAGES / 255},
        r"say which with data\.value_range=\(0, 1\) or data\.value_range=\(-1",
    ),
    "a wrong range": ({"images": IMAGES / 128.0 - 1.5}, r"must be in \[-1, 1\]; the values are from -1\.5 to 0\.49"),
    "no numbers": ({"images": np.full((3, 8, 8), np.nan)}, "not all are numbers"),
    "too few labels": ({"images": IMAGES, "labels": LABELS[:11]}, r"labels must be \[12\] or \[12, 1\].* \(11,\)"),
    "several labels": ({"images": IMAGES, "labels": np.zeros((12, 14))}, "14 values per image .* data.labels=none"),
    "labels that are numbers": (
        {"images": IMAGES, "labels": LABELS / 2},
        "labels must be integers or strings, not float",
    ),
    "a missing label": (
        {"images": IMAGES, "labels": LABELS - 1},
        "images/0 has the label -1, out of range for the 2 classes",
    ),
    "huge labels": ({"images": IMAGES, "labels": LABELS + 10**6}, "label 1000002 is too large for a class"),
    "too few names": (
        {"images": IMAGES, "labels": LABELS, "class_names": np.array(["a", "b"])},
        "images/2 has the label 2, out of range for the 2 classes 0 to 1",
    ),
    "labels alone": ({"images": IMAGES, "val_labels": LABELS}, "has val_labels, but no val_images"),
    "two sizes": (
        {"train_images": IMAGES, "test_images": images(2, side=4)},
        r"test images are \(4, 4, 3\), but those",
    ),
    "two of train": ({"train_images": IMAGES, "images": IMAGES}, "train_images and images both name the train images"),
    "other names": ({"pictures": IMAGES}, "has no array train_images or .*; it has none that is known"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arrays_are_one_line_and_nothing_is_prepared(tmp_path, name):
    arrays, reason = BAD[name]
    path = write(tmp_path / "a.npz", **arrays)
    with one_line(f"{path}.*{reason}"):
        load("image_arrays", path)
    assert nothing_prepared(path)


@pytest.mark.parametrize("ending", ["npz", "npy"])
@pytest.mark.parametrize("kept", [0, 3, 40, 900])
def test_files_that_are_cut_off_are_one_line(tmp_path, ending, kept):
    path = tmp_path / f"a.{ending}"
    np.savez(path, images=IMAGES) if ending == "npz" else np.save(path, IMAGES)
    path.write_bytes(path.read_bytes()[:kept])
    with one_line(f"{path} cannot be read"):
        load("image_arrays", path)


def test_damage_that_shows_late_leaves_nothing_behind(tmp_path):
    path = write(tmp_path / "a.npz", images=IMAGES)
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(bytes(content))
    with one_line(f"{path} cannot be read .*Bad CRC-32"):
        load("image_arrays", path)
    assert nothing_prepared(path)


def test_other_paths_and_options_are_one_line(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    with one_line("a named pipe, not a regular file"):
        load("image_arrays", tmp_path / "pipe.npy")
    with one_line(f"manual_dir={tmp_path}/absent.npz: No such file or directory; name your .npz or .npy file"):
        load("image_arrays", tmp_path / "absent.npz")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "1.png").touch()
    with one_line("in has no .npy files, only 1 .png: name your"):
        load("image_arrays", tmp_path / "in")
    path = write(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    with one_line("^labels=folder: choose one of auto, none"):
        load("image_arrays", path, labels="folder")
    with one_line(r"^value_range=\(0, 1\): is for float images, but those of .*/a.npz are uint8: omit it"):
        load("image_arrays", path, value_range=(0, 1))
    with one_line(r"^value_range=\(0, 1\): name=image_folder has no such option: choose name=image_arrays, or"):
        load("image_folder", tmp_path / "in", image_size=8, value_range=(0, 1))
    with one_line("needs your file of arrays: set data.manual_dir=FILE"):
        load("image_arrays", path, manual_dir=None)
