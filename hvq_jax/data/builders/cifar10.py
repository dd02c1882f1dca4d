"""CIFAR-10 from its published binary archive.

Format: https://www.cs.toronto.edu/~kriz/cifar.html, section "Binary version".
"""

import math
import pathlib
import tarfile
import zlib

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.download import PublishedFile
from hvq_jax.errors import UserError

_FOLDER = "cifar-10-batches-bin"
_IMAGE_SHAPE = (32, 32, 3)
_RECORD_BYTES = 1 + math.prod(_IMAGE_SHAPE)  # the label, then the image channel by channel
_BATCHES = {
    tfds.Split.TRAIN: tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    tfds.Split.TEST: ("test_batch.bin",),
}


class Cifar10(ImageBuilder):
    """Natural images of 10 classes: 50,000 for training, 10,000 for testing."""

    DESCRIPTION = "CIFAR-10 (Krizhevsky, 2009), official splits."
    HOMEPAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"
    IMAGE_SHAPE = _IMAGE_SHAPE
    CLASS_NAMES = (
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    )
    ARCHIVE = PublishedFile(
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    )

    def read_splits(self, download_dir: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns the arrays of both splits."""
        archive = self.locate(self.ARCHIVE, download_dir)
        try:
            with tarfile.open(archive) as tar:
                return {
                    split: _parse(b"".join(_member(tar, name, archive) for name in names), archive)
                    for split, names in _BATCHES.items()
                }
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise UserError(f"cannot read {archive}: {error}; download it again") from error


def _member(tar: tarfile.TarFile, name: str, archive: pathlib.Path) -> bytes:
    """Returns a member's bytes; nothing is unpacked, so no member can write outside a folder."""
    path = f"{_FOLDER}/{name}"
    try:
        file = tar.extractfile(path)
    except KeyError as error:
        raise UserError(f"{archive} has no member {path}: it is not CIFAR-10") from error
    if file is None:
        raise UserError(f"{archive}: the member {path} is not a file")
    return file.read()


def _parse(content: bytes, archive: pathlib.Path) -> tuple[np.ndarray, np.ndarray]:
    if len(content) % _RECORD_BYTES:
        raise UserError(f"{archive} is damaged: a batch is no multiple of {_RECORD_BYTES} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD_BYTES)
    height, width, channels = _IMAGE_SHAPE
    images = records[:, 1:].reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return images, records[:, 0]
