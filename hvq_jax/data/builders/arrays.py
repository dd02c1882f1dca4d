"""Builders of data sets that are published as a few files of arrays."""

import abc
import dataclasses
import pathlib
from collections.abc import Generator
from typing import ClassVar

import numpy as np

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.builders.download import PublishedFile, download, find_file
from hvq_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class ArraySplit:
    """A split of images and labels in memory."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N] uint8

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Generator[tuple[np.ndarray, int], None, None]:
        yield from zip(self.images, map(int, self.labels), strict=True)


class ArrayBuilder(ImageBuilder):
    """A published data set that fits in memory. Subclasses define the constants and read the arrays."""

    DESCRIPTION: ClassVar[str]
    IMAGE_SHAPE: ClassVar[tuple[int, int, int]]  # (H, W, C)
    CLASS_NAMES: ClassVar[tuple[str, ...]]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the images."""
        return self.IMAGE_SHAPE

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""
        return self.CLASS_NAMES

    @property
    def description(self) -> str:
        """Description of the images."""
        return self.DESCRIPTION

    @abc.abstractmethod
    def read_arrays(self, download_dir: pathlib.Path) -> dict[str, ArraySplit]:
        """Return the arrays by split; `read_splits` checks them."""

    def read_splits(self, download_dir: pathlib.Path) -> dict[str, ArraySplit]:
        """Return the arrays by split, from `manual_dir` or from files downloaded into `download_dir`.

        Raises:
            UserError: a file is missing or damaged, or images, labels and classes do not match.
        """
        splits = self.read_arrays(download_dir)
        for name, split in splits.items():
            self._check(f"the {name} split of {self.name}", split.images, split.labels)
        return splits

    def locate(self, file: PublishedFile, download_dir: pathlib.Path, *alternatives: str) -> pathlib.Path:
        """Return the path of a published file or an alternative in `manual_dir`; without `manual_dir`, download it."""
        if self._manual_dir is None:
            return download(file, download_dir)
        return find_file(self._manual_dir, file.name, *alternatives)

    def _check(self, where: str, images: np.ndarray, labels: np.ndarray) -> None:
        if images.shape[1:] != self.IMAGE_SHAPE:
            raise UserError(f"{where}: images have shape {images.shape[1:]}, expected {self.IMAGE_SHAPE}")
        if labels.shape != (len(images),):
            raise UserError(f"{where}: {len(images)} images, but labels of shape {labels.shape}")
        if len(images) == 0:
            raise UserError(f"{where} has no images")
        if labels.max() >= len(self.CLASS_NAMES):
            raise UserError(f"{where}: label {labels.max()} is out of range for {len(self.CLASS_NAMES)} classes")
