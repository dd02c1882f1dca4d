"""CIFAR-10 and CIFAR-100 from their published archives, in the binary or the Python version.

Formats: https://www.cs.toronto.edu/~kriz/cifar.html, sections "Binary version" and "Python version".
"""

import math
import pathlib
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.archive import read_members
from hvq_jax.data.builders.arrays import ArrayBuilder, ArraySplit
from hvq_jax.data.builders.download import PublishedFile
from hvq_jax.data.builders.pickled_arrays import load_pickled, uint8_array
from hvq_jax.errors import UserError

_IMAGE_SHAPE = (32, 32, 3)
_IMAGE_BYTES = math.prod(_IMAGE_SHAPE)  # one channel after the other
_FINE_LABELS = """
apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish
forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle
mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine
possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar
sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle wardrobe whale
willow_tree wolf woman worm
"""


class CifarBuilder(ArrayBuilder):
    """Official train and test splits. Downloads the binary archive; `manual_dir` may hold either version."""

    HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
    IMAGE_SHAPE = _IMAGE_SHAPE

    BINARY: ClassVar[PublishedFile]
    PYTHON: ClassVar[str]  # file name of the Python archive
    BINARY_MEMBERS: ClassVar[dict[str, tuple[str, ...]]]  # by split
    PYTHON_MEMBERS: ClassVar[dict[str, tuple[str, ...]]]
    LABEL_BYTES: ClassVar[int]  # number of label bytes before each image of the binary archive; the last one is used
    PYTHON_LABELS: ClassVar[bytes]  # key of the labels in the Python archive

    def read_arrays(self, download_dir: pathlib.Path) -> dict[str, ArraySplit]:
        """Return the train and test splits."""
        archive = self.locate(self.BINARY, download_dir, self.PYTHON)
        is_python = archive.name == self.PYTHON
        members = self.PYTHON_MEMBERS if is_python else self.BINARY_MEMBERS
        read = self._read_python if is_python else self._read_binary
        contents = read_members(archive, [name for names in members.values() for name in names])
        splits = {}
        for split, names in members.items():
            parts = [read(contents[name], f"{name} in {archive}") for name in names]
            rows, labels = map(np.concatenate, zip(*parts, strict=True))
            splits[split] = ArraySplit(_upright(rows), labels)
        return splits

    def _read_binary(self, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels [N, 3072] and labels [N] from a file of the binary archive."""
        record_bytes = self.LABEL_BYTES + _IMAGE_BYTES
        if len(content) % record_bytes:
            raise UserError(f"{where} is damaged: its length is not a multiple of {record_bytes} bytes")
        records = np.frombuffer(content, np.uint8).reshape(-1, record_bytes)
        return records[:, self.LABEL_BYTES :], records[:, self.LABEL_BYTES - 1]

    def _read_python(self, content: bytes, where: str) -> tuple[np.ndarray, np.ndarray]:
        """Return pixels [N, 3072] and labels [N] from a file of the Python archive."""
        batch = load_pickled(content, where)
        rows = uint8_array(batch.get(b"data"), where)
        labels = batch.get(self.PYTHON_LABELS)
        if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < 256 for label in labels):
            raise UserError(f"{where} is damaged or not the published file: it has no list {self.PYTHON_LABELS!r}")
        if rows.shape != (len(labels), _IMAGE_BYTES):
            raise UserError(f"{where} is damaged: it has {len(labels)} labels, but an array of shape {rows.shape}")
        return rows, np.array(labels, np.uint8)


def _upright(rows: np.ndarray) -> np.ndarray:
    """Convert rows of pixels, one channel after the other, to images [N, 32, 32, 3]."""
    height, width, channels = _IMAGE_SHAPE
    return rows.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)


class Cifar10(CifarBuilder):
    """Natural images of 10 classes: 50,000 for training, 10,000 for testing."""

    TITLE = "CIFAR-10"
    DESCRIPTION = "CIFAR-10 (Krizhevsky, 2009), official splits."
    CLASS_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    BINARY = PublishedFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )
    PYTHON = "cifar-10-python.tar.gz"
    BINARY_MEMBERS: ClassVar[dict[str, tuple[str, ...]]] = {
        tfds.Split.TRAIN: tuple(f"cifar-10-batches-bin/data_batch_{number}.bin" for number in range(1, 6)),
        tfds.Split.TEST: ("cifar-10-batches-bin/test_batch.bin",),
    }
    PYTHON_MEMBERS: ClassVar[dict[str, tuple[str, ...]]] = {
        tfds.Split.TRAIN: tuple(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
        tfds.Split.TEST: ("cifar-10-batches-py/test_batch",),
    }
    LABEL_BYTES = 1
    PYTHON_LABELS = b"labels"


class Cifar100(CifarBuilder):
    """Natural images of 100 classes (the fine labels): 50,000 for training, 10,000 for testing."""

    TITLE = "CIFAR-100"
    DESCRIPTION = "CIFAR-100 (Krizhevsky, 2009), official splits, fine labels."
    CLASS_NAMES = tuple(_FINE_LABELS.split())
    BINARY = PublishedFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    )
    PYTHON = "cifar-100-python.tar.gz"
    BINARY_MEMBERS: ClassVar[dict[str, tuple[str, ...]]] = {
        tfds.Split.TRAIN: ("cifar-100-binary/train.bin",),
        tfds.Split.TEST: ("cifar-100-binary/test.bin",),
    }
    PYTHON_MEMBERS: ClassVar[dict[str, tuple[str, ...]]] = {
        tfds.Split.TRAIN: ("cifar-100-python/train",),
        tfds.Split.TEST: ("cifar-100-python/test",),
    }
    LABEL_BYTES = 2  # the coarse label, then the fine one
    PYTHON_LABELS = b"fine_labels"
