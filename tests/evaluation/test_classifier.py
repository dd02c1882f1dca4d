"""The classifier on coloured blocks."""

import jax
import numpy as np
import pytest

from hvq_jax.errors import UserError
from hvq_jax.evaluation.classifier import (
    Classifier,
    accuracy,
    features,
    predict,
    train_classifier,
)

NUM_CLASSES = 3


def coloured_blocks(num_images: int, side: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Return noise with a bright block, red, green or blue by class, at a random place."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, NUM_CLASSES, num_images).astype(np.int32)
    images = rng.integers(0, 100, (num_images, side, side, 3)).astype(np.uint8)
    for image, label, (y, x) in zip(images, labels, rng.integers(0, side - 4, (num_images, 2)), strict=True):
        image[y : y + 4, x : x + 4, label] = 255
    return images, labels


IMAGES, LABELS = coloured_blocks(700)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return train_classifier(IMAGES[:512], LABELS[:512], NUM_CLASSES, seed=0, batch_size=32)


def equal_parameters(a: Classifier, b: Classifier) -> bool:
    return jax.tree.all(jax.tree.map(np.array_equal, a.variables, b.variables))


def test_learns_to_tell_colours(classifier):
    assert accuracy(classifier, IMAGES[512:], LABELS[512:]) > 0.98


def test_the_seed_decides_every_parameter():
    def briefly(seed):
        return train_classifier(IMAGES[:64], LABELS[:64], NUM_CLASSES, seed=seed, epochs=2, batch_size=32)

    assert equal_parameters(briefly(seed=0), briefly(seed=0))
    assert not equal_parameters(briefly(seed=0), briefly(seed=1))


def test_predictions_and_features_do_not_depend_on_the_batch(classifier):
    # 700 images are a full batch of prediction and a ragged one.
    predicted, hidden = predict(classifier, IMAGES), features(classifier, IMAGES)
    assert predicted.shape == (700,)
    assert hidden.shape == (700, 64)
    assert hidden.dtype == np.float32
    assert np.isin(predicted, range(NUM_CLASSES)).all()
    np.testing.assert_array_equal(predict(classifier, IMAGES[-7:]), predicted[-7:])
    # The same compiled function at another place of the batch: float32 rounding at most.
    np.testing.assert_allclose(features(classifier, IMAGES[-7:]), hidden[-7:], rtol=1e-5, atol=1e-5)


def test_accuracy_is_the_share_of_hits(classifier):
    predicted = predict(classifier, IMAGES[:10])
    wrong = np.where(np.arange(10) < 4, (predicted + 1) % NUM_CLASSES, predicted)
    assert accuracy(classifier, IMAGES[:10], wrong) == 0.6


def test_the_smallest_side_an_odd_one_and_fewer_images_than_a_batch():
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 13, 1)).astype(np.uint8)
    trained = train_classifier(images, np.arange(5), 5, seed=0, epochs=1)
    assert features(trained, images).shape == (5, 64)


@pytest.mark.parametrize("wrong_label", [-1, NUM_CLASSES])
def test_labels_out_of_range_are_refused(classifier, wrong_label):
    labels = LABELS[:20].copy()
    labels[7] = wrong_label
    with pytest.raises(UserError, match=rf"0…2.*{wrong_label}"):
        train_classifier(IMAGES[:20], labels, NUM_CLASSES, seed=0)
    with pytest.raises(UserError, match=rf"0…2.*{wrong_label}"):
        accuracy(classifier, IMAGES[:20], labels)


@pytest.mark.parametrize(
    "images",
    [
        IMAGES[:0],
        IMAGES[:4].astype(np.float32),
        IMAGES[0],
        IMAGES[:4, :7],
    ],
    ids=["none", "float", "a single image", "too small"],
)
def test_other_images_are_refused(images):
    with pytest.raises(UserError, match="the classifier takes"):
        train_classifier(images, LABELS[: len(images)], NUM_CLASSES, seed=0)


def test_labels_must_be_as_many_as_images():
    with pytest.raises(UserError, match=r"4 images need labels of shape \[4\]"):
        train_classifier(IMAGES[:4], LABELS[:5], NUM_CLASSES, seed=0)


def test_images_of_another_shape_than_trained_on_are_refused(classifier):
    with pytest.raises(UserError, match=r"trained on images of shape \(12, 12, 3\)"):
        predict(classifier, IMAGES[:4, :, :, :1])
