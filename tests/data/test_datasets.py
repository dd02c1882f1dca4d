import itertools
import os

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from prepared_files import TWO_CLASSES, tensor, write_dataset
from published_files import labelled_images

from hvq_jax.data.datasets import ImageDataset, Split, load_dataset
from hvq_jax.data.streamed import StreamedSplit
from hvq_jax.errors import UserError

SPLITS = ("train", "validation", "test")


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def numbered(first: int, count: int, shape: tuple[int, ...] = (2, 2, 1)) -> list[dict]:
    """Return examples whose pixels all contain the example's index, with the index's parity as the label."""
    return [{"image": np.full(shape, number, np.uint8), "label": number % 2} for number in range(first, first + count)]


def numbers(dataset: ImageDataset) -> dict[str, list[int]]:
    """Return the indices of the images of each split."""
    splits = {name: getattr(dataset, name) for name in SPLITS}
    return {name: split.read(np.arange(len(split)))[0][:, 0, 0, 0].tolist() for name, split in splits.items()}


@pytest.fixture(scope="module")
def only_train(tmp_path_factory):
    """Return a folder in which "garments" has 100 training images and no other split."""
    folder = tmp_path_factory.mktemp("only_train")
    write_dataset(folder, numbered(0, 100), image=tensor(2, 2, 1), label=TWO_CLASSES)
    return folder


def load(folder, **options) -> ImageDataset:
    return load_dataset("garments", data_dir=folder, **{"validation_size": 10, "test_size": 20, **options})


def test_mini_has_its_fixed_splits(mini):
    assert [len(mini.train), len(mini.validation), len(mini.test)] == [8000, 1000, 1000]
    assert mini.image_shape == (28, 28, 1)
    assert len(mini.class_names) == 10
    for split in (mini.train, mini.validation, mini.test):
        assert split.items.dtype == np.uint8
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(np.unique(split.labels), np.arange(10))


def test_mini_splits_are_disjoint(mini):
    train, validation, test = (rows(s.items) for s in (mini.train, mini.validation, mini.test))
    assert train.isdisjoint(validation)
    assert train.isdisjoint(test)
    assert validation.isdisjoint(test)


def test_validation_is_carved_from_train_alone(tiny, tiny_splits):
    assert [len(tiny.train), len(tiny.validation), len(tiny.test)] == [22, 8, 12]
    train, validation = rows(tiny.train.items), rows(tiny.validation.items)
    assert train.isdisjoint(validation)
    assert train | validation == rows(tiny_splits["train"][0])
    np.testing.assert_array_equal(tiny.test.items[..., 0], tiny_splits["test"][0])


def test_carved_images_keep_their_labels(tiny, tiny_splits):
    label_of = {image.tobytes(): label for image, label in zip(*tiny_splits["train"], strict=True)}
    for split in (tiny.train, tiny.validation):
        for image, label in zip(split.items, split.labels, strict=True):
            assert label_of[image.tobytes()] == label


def test_carved_validation_is_the_same_every_time(tiny, prepared_dir):
    again = load_dataset("fashion_mnist", data_dir=prepared_dir, validation_size=8)
    np.testing.assert_array_equal(again.validation.items, tiny.validation.items)
    np.testing.assert_array_equal(again.train.labels, tiny.train.labels)


@pytest.mark.parametrize(
    ("size", "allowed"), [(-1, "at least 1"), (0, "at least 1"), (30, "between 1 and 29"), (31, "between 1 and 29")]
)
def test_validation_must_leave_something_to_train_on(tiny, prepared_dir, size, allowed):
    with pytest.raises(UserError, match=f"^validation_size={size}: must be {allowed}"):
        load_dataset("fashion_mnist", data_dir=prepared_dir, validation_size=size)


@hypothesis.settings(max_examples=15)
@hypothesis.given(st.integers(1, 60), st.integers(1, 39), st.booleans())
def test_carved_splits_divide_train(only_train, validation_size, test_size, stream):
    options = {"memory_gib": 0 if stream else 1}
    dataset = load(only_train, validation_size=validation_size, test_size=test_size, **options)
    assert [len(dataset.validation), len(dataset.test)] == [validation_size, test_size]
    parts = numbers(dataset)
    assert sorted(itertools.chain(*parts.values())) == list(range(100))
    assert all(part == sorted(part) for part in parts.values())
    # The test images do not depend on the size of any other split.
    assert numbers(load(only_train, validation_size=1, test_size=test_size))["test"] == parts["test"]


def test_carved_splits_are_a_promise(only_train):
    # This must never change, because resumed runs would be validated on images they were trained on.
    parts = numbers(load(only_train, validation_size=5, test_size=3))
    assert [parts["validation"], parts["test"]] == [[3, 11, 13, 20, 92], [26, 77, 94]]


@pytest.mark.parametrize(
    ("validation_size", "test_size", "message"),
    [
        (0, 20, "validation_size=0: must be at least 1"),
        (10, 0, "test_size=0: must be at least 1"),
        (10, -5, "test_size=-5: must be at least 1"),
        (
            50,
            50,
            "validation_size=50: must be between 1 and 99 together with data.test_size=50, since it is taken from",
        ),
        (
            5000,
            5000,
            "validation_size=5000: must be between 1 and 99 together with data.test_size=5000, since it is taken",
        ),
    ],
)
def test_carved_splits_must_leave_something_to_train_on(only_train, validation_size, test_size, message):
    with pytest.raises(UserError, match=f"^{message}"):
        load(only_train, validation_size=validation_size, test_size=test_size)


def test_sizes_that_are_not_given_follow_the_data_set(only_train):
    dataset = load(only_train, validation_size=None, test_size=7)
    assert dataset.carved_sizes == {"validation": 10, "test": 7}
    assert dataset.counts == (
        "83 images to train on, 10 for validation, 7 for testing; 2×2×1, 2 classes; "
        "validation and test taken from train"
    )


@pytest.mark.parametrize("count", [1, 2, 3])
def test_there_must_be_an_image_for_each_split(tmp_path, count):
    write_dataset(tmp_path, numbered(0, count), image=tensor(2, 2, 1), label=TWO_CLASSES)
    if count == 3:
        assert sorted(map(len, numbers(load_dataset("garments", data_dir=tmp_path)).values())) == [1, 1, 1]
        return
    with pytest.raises(UserError, match=f"^{count} training images? cannot be divided into train, validation and test"):
        load_dataset("garments", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["validation", "val", "valid", "dev"])
def test_a_validation_split_has_one_of_several_names(tmp_path, name):
    splits = {"train": numbered(0, 9), name: numbered(9, 3)}
    write_dataset(tmp_path, splits, image=tensor(2, 2, 1), label=TWO_CLASSES)
    parts = numbers(load(tmp_path, test_size=4))
    assert parts["validation"] == [9, 10, 11]
    assert len(parts["test"]) == 4
    assert sorted(parts["train"] + parts["test"]) == list(range(9))


def test_no_size_matters_where_all_splits_are_there(tmp_path):
    splits = {"train": numbered(0, 2), "validation": numbered(2, 2), "test": numbered(4, 2), "other": numbered(6, 2)}
    write_dataset(tmp_path, splits, image=tensor(2, 2, 1), label=TWO_CLASSES)
    dataset = load(tmp_path, validation_size=10**6, test_size=10**6)
    assert numbers(dataset) == {"train": [0, 1], "validation": [2, 3], "test": [4, 5]}
    assert dataset.class_names == ("a", "b")


def test_a_split_whose_labels_are_held_back_counts_as_missing(tmp_path):
    unlabelled = [{**example, "label": -1} for example in numbered(9, 3)]
    splits = {"train": numbered(0, 6), "validation": numbered(6, 3), "test": unlabelled}
    write_dataset(tmp_path, splits, image=tensor(2, 2, 1), label=TWO_CLASSES)
    parts = numbers(load(tmp_path, test_size=2))
    assert parts["validation"] == [6, 7, 8]
    assert sorted(parts["train"] + parts["test"]) == list(range(6))


def test_splits_of_several_sizes_are_refused(tmp_path):
    splits = {"train": numbered(0, 40, (2, 2, 1)), "test": numbered(0, 2, (3, 2, 1))}
    write_dataset(tmp_path, splits, image=tensor(None, 2, 1), label=TWO_CLASSES)
    several = r"image 0 of the test split .* is 3×2×1, but others are 2×2×1: bring .* with data\.image_size=SIZE"
    with pytest.raises(UserError, match=several):
        load(tmp_path)


def test_a_label_beyond_those_of_train_is_refused(tmp_path):
    splits = {"train": numbered(0, 40), "test": [{"image": np.zeros((2, 2, 1), np.uint8), "label": 2}]}
    write_dataset(tmp_path, splits, image=tensor(2, 2, 1), label=tfds.features.Scalar(np.int64))
    with pytest.raises(UserError, match=r"image 0 of the test split .* label 2, .* classes 0 to 1"):
        load(tmp_path)


@pytest.mark.parametrize(("bytes_too_few", "kind"), [(0, Split), (1, StreamedSplit)])
def test_what_fits_is_kept_in_memory(only_train, bytes_too_few, kind):
    dataset = load(only_train, memory_gib=(100 * 2 * 2 * 1 - bytes_too_few) / 2**30)
    assert [type(getattr(dataset, name)) for name in SPLITS] == [kind] * 3
    assert dataset.image_shape == (2, 2, 1)


def test_size_and_channels_are_those_asked_for(prepared_dir, mini):
    dataset = load_dataset("fashion_mnist_mini", data_dir=prepared_dir, image_size=14, channels=3, memory_gib=0)
    assert dataset.image_shape == (14, 14, 3)
    images, _ = dataset.test.read(np.arange(100))
    np.testing.assert_array_equal(images[..., 0], images[..., 2])
    halved = mini.test.items[:100].reshape(100, 14, 2, 14, 2).mean((2, 4))
    assert np.abs(images[..., 0] - halved).mean() < 10  # another filter, the same image
    wide = load_dataset("fashion_mnist_mini", data_dir=prepared_dir, image_size=(7, 14))
    assert wide.image_shape == (7, 14, 1)


def test_the_fingerprint_does_not_depend_on_where_the_images_are(only_train):
    assert load(only_train).fingerprint() == load(only_train, memory_gib=0).fingerprint()


def test_the_fingerprint_tells_data_sets_apart():
    images, labels = labelled_images(6, (2, 2, 1), 0)
    base = Split(images, labels.astype(np.int32))
    brighter = Split(images + np.uint8(1), base.labels)
    relabelled = Split(images, base.labels + 1)
    shorter = Split(images[:5], base.labels[:5])
    reshaped = Split(images.reshape(6, 4, 1, 1), base.labels)
    others = [[split, base, base] for split in (base, brighter, relabelled, shorter, reshaped)]
    others += [[base, brighter, base], [base, base, brighter]]
    assert len({ImageDataset(*splits, ("a",)).fingerprint() for splits in others}) == len(others)


@pytest.mark.parametrize("memory_gib", [0, 1])
def test_names_are_those_of_the_files_and_numbers_where_there_are_none(only_train, tmp_path, memory_gib):
    dataset = load(only_train, memory_gib=memory_gib)
    for split, part in numbers(dataset).items():
        assert dataset.names[split].tolist() == [f"train/{number}".encode() for number in part]
    folder = tmp_path / "in"
    for number in range(20):
        name = f"{number}.png" if number else os.fsdecode(b"\xe9.png")
        (folder / str(number % 2)).mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), number).save(folder / str(number % 2) / name)
    (folder / "1" / "3.png").write_bytes(b"")
    for _ in range(2):  # prepared, and opened again
        dataset = load_dataset(
            "image_folder",
            data_dir=tmp_path / "out",
            manual_dir=folder,
            image_size=2,
            channels=1,
            skip_corrupt=True,
            memory_gib=memory_gib,
        )
        assert sum(map(len, dataset.names.values())) == 19
        for split, part in numbers(dataset).items():
            names = [f"{number % 2}/{number}.png" if number else "0/\\xe9.png" for number in part]
            assert [name.decode() for name in dataset.names[split]] == names


@pytest.mark.parametrize("option", [{"labels": "none"}, {"value_range": (0, 1)}])
def test_options_of_own_images_are_refused_for_other_data_sets(only_train, option):
    said = r"^(labels|value_range)=.*: name=garments has no such option: choose name=image_"
    for name in ("garments", "fashion_mnist_mini"):
        with pytest.raises(UserError, match=said.replace("garments", name)):
            load_dataset(name, data_dir=only_train, **option)


def test_unknown_name_lists_ours(tmp_path):
    with pytest.raises(UserError, match=r"cifar10, .*fashion_mnist, fashion_mnist_mini, .*mnist"):
        load_dataset("xyz", data_dir=tmp_path)
