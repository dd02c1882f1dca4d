"""Arrays that are given in Python: the same data set as from an .npz with them."""

import numpy as np
import pytest
from own_files import everything, images, load, one_line

from hvq_jax.data.datasets import load_dataset
from hvq_jax.data.given import given_dataset
from hvq_jax.data.options import DataOptions

IMAGES, LABELS = images(12), np.arange(12) % 3
SIZES = {"validation_size": 1, "test_size": 1}


@pytest.mark.parametrize(
    "arrays",
    [
        {"images": IMAGES, "labels": LABELS},
        {"train_images": IMAGES[:9], "val_images": IMAGES[9:11], "test_images": IMAGES[11:]},
        {"x_train": IMAGES[:9], "y_train": LABELS[:9, None], "x_test": IMAGES[9:], "y_test": LABELS[9:]},
        {"images": IMAGES / 127.5 - 1, "labels": np.array(["b", "a", "c"])[LABELS]},
    ],
)
@pytest.mark.parametrize("options", [{}, {"image_size": 4, "channels": 1}, {"labels": "none"}])
def test_it_is_the_data_set_of_an_npz(tmp_path, arrays, options):
    np.savez(tmp_path / "a.npz", **arrays)
    stored = load("image_arrays", tmp_path / "a.npz", **options)
    given = given_dataset(arrays, DataOptions(**SIZES, **options))
    assert given.fingerprint() == stored.fingerprint()
    assert everything(given) == everything(stored)
    assert (given.class_names, given.carved, given.counts) == (stored.class_names, stored.carved, stored.counts)


def test_a_pair_is_images_and_labels_and_an_array_is_images():
    options = DataOptions(**SIZES)
    named = given_dataset({"images": IMAGES, "labels": LABELS}, options)
    assert given_dataset((IMAGES, LABELS), options).fingerprint() == named.fingerprint()
    assert given_dataset(IMAGES, options).class_names == ("image",)
    assert given_dataset(named, options) is named


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ((IMAGES,), r"^data: must be images, or \(images, labels\); it is a tuple of 1"),
        ((IMAGES, LABELS[:3]), r"^data: labels must be \[12\] or \[12, 1\]"),
        ((IMAGES / 255, LABELS), r"^data: float images from 0 to 1 may be meant .* data\.value_range=\(0, 1\)"),
        (IMAGES.reshape(12, -1), "^data: images must be .*: reshape it"),
        ({"pictures": IMAGES}, "^data has no array train_images or .*it has pictures"),
        (np.array([None]), "^data: images must be uint8, or float .*, not object"),
        ((IMAGES, np.zeros((12, 3))), "^data: labels has 3 values per image"),
        (IMAGES[:2], "^2 training images cannot be divided"),
    ],
)
def test_arrays_that_cannot_be_used_are_one_line(data, reason):
    with one_line(reason):
        given_dataset(data, DataOptions(**SIZES))


def test_the_name_of_given_arrays_is_no_data_set(tmp_path):
    with one_line("arrays that were given in Python: give them again, with hvq_jax.train"):
        load_dataset("arrays", data_dir=tmp_path)
