"""MNIST and Fashion-MNIST, which consist of four IDX files each, with the same names."""

import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.arrays import ArrayBuilder, ArraySplit
from hvq_jax.data.builders.download import PublishedFile
from hvq_jax.data.builders.idx import read_idx

MNIST_IMAGE_SHAPE = (28, 28, 1)
FASHION_MNIST_HOMEPAGE = "https://github.com/zalandoresearch/fashion-mnist"
FASHION_MNIST_CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)


def read_images(path: pathlib.Path) -> np.ndarray:
    """Read an IDX file of grey images as [N, 28, 28, 1] uint8."""
    return read_idx(path, MNIST_IMAGE_SHAPE[:2])[..., np.newaxis]


def read_labels(path: pathlib.Path) -> np.ndarray:
    """Read an IDX file of labels as [N] uint8."""
    return read_idx(path, ())


class IdxBuilder(ArrayBuilder):
    """Official train and test splits, read from the four IDX files under `BASE_URL`."""

    BASE_URL: ClassVar[str]
    SHA256: ClassVar[dict[str, str]]  # by file name
    IMAGE_SHAPE = MNIST_IMAGE_SHAPE

    def read_arrays(self, download_dir: pathlib.Path) -> dict[str, ArraySplit]:
        """Return the train and test splits."""
        path = {
            name: self.locate(PublishedFile(self.BASE_URL + name, sha256), download_dir, name.removesuffix(".gz"))
            for name, sha256 in self.SHA256.items()
        }
        return {
            split: ArraySplit(
                read_images(path[f"{prefix}-images-idx3-ubyte.gz"]),
                read_labels(path[f"{prefix}-labels-idx1-ubyte.gz"]),
            )
            for split, prefix in ((tfds.Split.TRAIN, "train"), (tfds.Split.TEST, "t10k"))
        }


class Mnist(IdxBuilder):
    """Handwritten digits: 60,000 for training, 10,000 for testing."""

    TITLE = "MNIST"
    DESCRIPTION = "MNIST handwritten digits (LeCun, Cortes and Burges), official splits."
    HOMEPAGE = "http://yann.lecun.com/exdb/mnist/"
    CLASS_NAMES = tuple("0123456789")
    BASE_URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"
    SHA256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        "train-labels-idx1-ubyte.gz": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        "t10k-images-idx3-ubyte.gz": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        "t10k-labels-idx1-ubyte.gz": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    }


class FashionMnist(IdxBuilder):
    """Images of Zalando's clothing: 60,000 for training, 10,000 for testing."""

    TITLE = "Fashion-MNIST"
    DESCRIPTION = "Fashion-MNIST (Xiao, Rasul and Vollgraf, arXiv:1708.07747), official splits."
    HOMEPAGE = FASHION_MNIST_HOMEPAGE
    CLASS_NAMES = FASHION_MNIST_CLASS_NAMES
    BASE_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    SHA256: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": ("3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        "train-labels-idx1-ubyte.gz": ("a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        "t10k-images-idx3-ubyte.gz": ("346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        "t10k-labels-idx1-ubyte.gz": ("67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    }
