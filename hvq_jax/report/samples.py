"""Samples of a run: beside the nearest training images, and judged by a small classifier."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from hvq_jax.data.datasets import AnySplit, ImageDataset
from hvq_jax.errors import UserError
from hvq_jax.evaluation.classifier import features, predict, train_classifier
from hvq_jax.evaluation.distances import frechet_distance, precision_and_recall
from hvq_jax.runs.batching import evenly_spaced, stacks

_PIECE_BYTES = 2**25  # of training images compared at a time, as float32
_MOST_COMPARED = 50_000  # training images
_MOST_TO_LEARN_FROM = 10_000  # training images of the classifier
_MOST_BYTES_TO_LEARN_FROM = 2**29  # of these


@dataclasses.dataclass(frozen=True)
class Nearest:
    """The training image nearest to each of N images, by the root of the mean squared difference of pixels."""

    images: np.ndarray  # [N, H, W, C] uint8
    distances: np.ndarray  # [N], of values in [0, 1]


@dataclasses.dataclass(frozen=True)
class SetQuality:
    """A set of images compared with as many training images."""

    frechet: float
    precision: float
    recall: float


@dataclasses.dataclass(frozen=True)
class Quality:
    """What the classifier says of samples; `test` is what it says of as many test images, to compare with."""

    test: SetQuality
    reconstructions: SetQuality
    samples: SetQuality | None  # None without a prior
    test_accuracy: float
    accuracy: float | None  # share of samples of the class they were drawn for; None for an unconditional prior
    confusion: np.ndarray | None  # [C, C] int, drawn for (rows) and taken for (columns)


def find_nearest(images: np.ndarray, train: AnySplit) -> Nearest:
    """Return the nearest of the training images, of at most 50,000, to each of `images` `[N, H, W, C]` uint8."""
    wanted = images.reshape(len(images), -1).astype(np.float32) / 255
    squares = np.square(wanted).sum(axis=1)
    best = np.full(len(images), np.inf)
    found = np.zeros_like(images)
    for piece in _in_pieces(train):
        rows = piece.reshape(len(piece), -1).astype(np.float32) / 255
        distances = squares[:, None] + np.einsum("nd,nd->n", rows, rows) - 2 * wanted @ rows.T
        nearest = distances.argmin(axis=1)
        closer = distances[np.arange(len(images)), nearest] < best
        best[closer] = distances[np.arange(len(images)), nearest][closer]
        found[closer] = piece[nearest[closer]]
    return Nearest(found, np.sqrt(np.maximum(best, 0) / wanted.shape[1]))


def _in_pieces(split: AnySplit) -> Iterator[np.ndarray]:
    for rows in stacks(evenly_spaced(len(split), _MOST_COMPARED), _at_most(_PIECE_BYTES // 4, split)):
        yield split.read(rows)[0]


def _at_most(num_values: int, split: AnySplit) -> int:
    """Return how many images of a split have so many values, at least 1."""
    return max(num_values // math.prod(split.item_shape), 1)


def judge(
    data: ImageDataset,
    test: tuple[np.ndarray, np.ndarray],
    reconstructions: np.ndarray,
    samples: np.ndarray | None,
    drawn_for: np.ndarray | None,
    *,
    seed: int,
) -> Quality:
    """Return the quality of N samples and reconstructions; the same data set gives the same classifier.

    Args:
        data: the data set; the classifier learns from its training images.
        test: N test images `[N, H, W, C]` uint8 and their labels `[N]`.
        reconstructions: of these, same shape.
        samples: same shape; None without a prior.
        drawn_for: `[N]`, the class of each sample; None for an unconditional prior.
        seed: of the classifier.

    Raises:
        UserError: there are too few classes, images or pixels for a classifier.
    """
    num_classes, images = len(data.class_names), test[0]
    if num_classes < 2:
        raise UserError("its images have no classes to learn")
    most = min(_MOST_TO_LEARN_FROM, _at_most(_MOST_BYTES_TO_LEARN_FROM, data.train))
    images_to_learn, labels = data.train.read(evenly_spaced(len(data.train), most))
    classifier = train_classifier(images_to_learn, labels, num_classes, seed=seed)
    real = features(classifier, data.train.read(evenly_spaced(len(data.train), len(images)))[0])

    def compared(others: np.ndarray) -> SetQuality:
        found = features(classifier, others)
        return SetQuality(frechet_distance(real, found), *precision_and_recall(real, found))

    accuracy = confusion = None
    if samples is not None and drawn_for is not None:
        taken_for = predict(classifier, samples)
        confusion = np.zeros((num_classes, num_classes), int)
        np.add.at(confusion, (drawn_for, taken_for), 1)
        accuracy = float(np.mean(taken_for == drawn_for))
    return Quality(
        test=compared(images),
        reconstructions=compared(reconstructions),
        samples=None if samples is None else compared(samples),
        test_accuracy=float(np.mean(predict(classifier, images) == test[1])),
        accuracy=accuracy,
        confusion=confusion,
    )
