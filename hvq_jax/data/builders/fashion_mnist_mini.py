"""The embedded Fashion-MNIST test file with new splits, so that the quickstart needs no download."""

import pathlib

import tensorflow_datasets as tfds

from hvq_jax.data.builders.arrays import ArrayBuilder, ArraySplit
from hvq_jax.data.builders.mnist import (
    FASHION_MNIST_CLASS_NAMES,
    FASHION_MNIST_HOMEPAGE,
    MNIST_IMAGE_SHAPE,
    read_images,
    read_labels,
)

_EMBEDDED = pathlib.Path(__file__).parent.parent / "embedded" / "fashion_mnist_test"


class FashionMnistMini(ArrayBuilder):
    """Splits of 8,000 / 1,000 / 1,000 images from the official test file, in its order.

    Results on these splits are not Fashion-MNIST results.
    """

    TITLE = "Fashion-MNIST mini"
    DESCRIPTION = (
        "Fashion-MNIST's official test file (10,000 images) in new splits: results are not Fashion-MNIST results."
    )
    HOMEPAGE = FASHION_MNIST_HOMEPAGE
    IMAGE_SHAPE = MNIST_IMAGE_SHAPE
    CLASS_NAMES = FASHION_MNIST_CLASS_NAMES

    def read_arrays(self, download_dir: pathlib.Path) -> dict[str, ArraySplit]:
        """Return the three splits; nothing is downloaded."""
        images = read_images(_EMBEDDED / "t10k-images-idx3-ubyte.gz")
        labels = read_labels(_EMBEDDED / "t10k-labels-idx1-ubyte.gz")
        rows = {
            tfds.Split.TRAIN: slice(0, 8000),
            tfds.Split.VALIDATION: slice(8000, 9000),
            tfds.Split.TEST: slice(9000, 10000),
        }
        return {split: ArraySplit(images[part], labels[part]) for split, part in rows.items()}
