"""What our TFDS builders share: raw uint8 images and a class label, written without TensorFlow."""

import abc
import os
import pathlib
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from hvq_jax.data.download import PublishedFile, download, find_file
from hvq_jax.errors import UserError


class ImageBuilder(tfds.core.GeneratorBasedBuilder):
    """Equally sized uint8 images with one label each, stored in the order of publication.

    Subclasses state the constants and read the arrays.
    """

    VERSION = tfds.core.Version("1.0.0")
    DESCRIPTION: ClassVar[str]
    HOMEPAGE: ClassVar[str]
    IMAGE_SHAPE: ClassVar[tuple[int, int, int]]  # (H, W, C)
    CLASS_NAMES: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls) -> None:
        # In TFDS's own registry most of our names are taken, by builders that need TensorFlow.
        super().__init_subclass__(skip_registration=True)

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        manual_dir: str | os.PathLike[str] | None = None,
    ):
        """Creates the builder; nothing is read or written yet.

        Args:
            data_dir: where prepared data sets live; `None` is TFDS's default folder.
            manual_dir: folder of the published files; `None` downloads them.
        """
        self._manual_dir = None if manual_dir is None else pathlib.Path(manual_dir).expanduser()
        super().__init__(data_dir=data_dir, file_format="array_record")

    @abc.abstractmethod
    def read_splits(self, download_dir: pathlib.Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Returns, by split, images [N, H, W, C] uint8 and labels [N] uint8."""

    def locate(self, file: PublishedFile, download_dir: pathlib.Path) -> pathlib.Path:
        """Returns a published file, from `manual_dir` if one was given, else by download."""
        if self._manual_dir is None:
            return download(file, download_dir)
        return find_file(self._manual_dir, file.name, file.name.removesuffix(".gz"))

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(
            shape=self.IMAGE_SHAPE,
            dtype=np.uint8,
            encoding=tfds.features.Encoding.BYTES,  # read twice as fast as a list of numbers
        )
        label = tfds.features.ClassLabel(names=self.CLASS_NAMES)
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.DESCRIPTION,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        splits = self.read_splits(pathlib.Path(dl_manager.download_dir) / self.name)
        for split, (images, labels) in splits.items():
            self._check(split, images, labels)
        return {split: self._generate_examples(split, *arrays) for split, arrays in splits.items()}

    def _check(self, split: str, images: np.ndarray, labels: np.ndarray) -> None:
        where = f"the {split} split of {self.name}"
        if images.shape[1:] != self.IMAGE_SHAPE:
            raise UserError(f"{where}: images are {images.shape[1:]}, expected {self.IMAGE_SHAPE}")
        if labels.shape != (len(images),):
            raise UserError(f"{where}: {len(images)} images, but labels of shape {labels.shape}")
        if len(images) == 0:
            raise UserError(f"{where} has no images")
        if labels.max() >= len(self.CLASS_NAMES):
            raise UserError(f"{where}: label {labels.max()} beyond the {len(self.CLASS_NAMES)} classes")

    def _generate_examples(
        self, split: str, images: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        progress = tqdm.tqdm(images, desc=f"Preparing {self.name} ({split})", unit=" images")
        for index, (image, label) in enumerate(zip(progress, labels, strict=True)):
            yield index, {"image": image, "label": int(label)}
