import numpy as np
import pytest

from hvq_jax.data.datasets import load_dataset
from hvq_jax.errors import UserError


def rows(images: np.ndarray) -> set[bytes]:
    return {image.tobytes() for image in images}


def test_mini_has_its_fixed_splits(mini):
    assert [len(mini.train), len(mini.validation), len(mini.test)] == [8000, 1000, 1000]
    assert mini.image_shape == (28, 28, 1)
    assert len(mini.class_names) == 10
    for split in (mini.train, mini.validation, mini.test):
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int32
        np.testing.assert_array_equal(np.unique(split.labels), np.arange(10))


def test_mini_splits_are_disjoint(mini):
    train, validation, test = (rows(s.images) for s in (mini.train, mini.validation, mini.test))
    assert train.isdisjoint(validation)
    assert train.isdisjoint(test)
    assert validation.isdisjoint(test)


def test_validation_is_carved_from_train_alone(tiny, tiny_splits):
    assert [len(tiny.train), len(tiny.validation), len(tiny.test)] == [22, 8, 12]
    train, validation = rows(tiny.train.images), rows(tiny.validation.images)
    assert train.isdisjoint(validation)
    assert train | validation == rows(tiny_splits["train"][0])
    np.testing.assert_array_equal(tiny.test.images[..., 0], tiny_splits["test"][0])


def test_carved_images_keep_their_labels(tiny, tiny_splits):
    label_of = {image.tobytes(): label for image, label in zip(*tiny_splits["train"], strict=True)}
    for split in (tiny.train, tiny.validation):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of[image.tobytes()] == label


def test_carved_validation_is_the_same_every_time(tiny, prepared_dir):
    again = load_dataset("fashion_mnist", data_dir=prepared_dir, validation_size=8)
    np.testing.assert_array_equal(again.validation.images, tiny.validation.images)
    np.testing.assert_array_equal(again.train.labels, tiny.train.labels)


@pytest.mark.parametrize("size", [-1, 0, 30, 31])
def test_validation_must_leave_something_to_train_on(tiny, prepared_dir, size):
    with pytest.raises(UserError, match=f"validation_size={size}: must be between 1 and 29"):
        load_dataset("fashion_mnist", data_dir=prepared_dir, validation_size=size)


def test_unknown_name_lists_ours(tmp_path):
    with pytest.raises(UserError, match="cifar10, fashion_mnist, fashion_mnist_mini, mnist"):
        load_dataset("xyz", data_dir=tmp_path)
