"""Base class of our TFDS builders: raw uint8 images with a class label, written without TensorFlow."""

import abc
import contextlib
import functools
import itertools
import math
import os
import pathlib
import shutil
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.records import RecordWriter, disk_bytes
from hvq_jax.errors import UserError
from hvq_jax.files import full_path
from hvq_jax.progress import progress_bar

_SHARD_BYTES = 64 << 20  # TFDS holds a whole shard in memory while writing it


class SplitImages(Protocol):
    """The images of one split, in order."""

    def __len__(self) -> int:
        """Return the number of images, or an upper bound on it."""

    def __iter__(self) -> Generator[tuple[np.ndarray, int], None, None]:
        """Yield images [H, W, C] uint8 and their labels; the caller closes the generator."""


class LocalInfo(tfds.core.DatasetInfo):
    """The description of a data set that TFDS's bucket does not have."""

    def initialize_from_bucket(self) -> None:
        """Do nothing; TFDS would leave an empty folder among the temporary files for each data set it looks up."""


class ImageBuilder(tfds.core.ShardBasedBuilder):
    """A data set of uint8 images of one size with one label each, stored in the order in which they are read.

    Subclasses describe the images and read them.
    """

    VERSION = tfds.core.Version("1.0.0")
    OPTIONS: ClassVar[tuple[str, ...]] = ()  # keyword arguments of the constructor, besides the folders
    HOMEPAGE: ClassVar[str | None] = None
    TITLE: ClassVar[str]  # of plots and for people

    def __init_subclass__(cls) -> None:
        # Most of our names are already taken in TFDS's registry, by builders that need TensorFlow.
        super().__init_subclass__(skip_registration=True)

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        manual_dir: str | os.PathLike[str] | None = None,
        config: str | None = None,
    ):
        """Create the builder without preparing the data set.

        Args:
            data_dir: folder of prepared data sets; `None` for TFDS's default.
            manual_dir: folder of the published files; `None` to download them.
            config: name of the prepared copy, if there can be several.
        """
        self._manual_dir = None if manual_dir is None else full_path(manual_dir)
        super().__init__(data_dir=data_dir, config=config, file_format="array_record")

    @property
    @abc.abstractmethod
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the images."""

    @property
    @abc.abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the labels."""

    @property
    @abc.abstractmethod
    def description(self) -> str:
        """Description of the images in a sentence or two."""

    @property
    def left_out(self) -> str:
        """The numbers of files that are not in the prepared data set, by kind."""
        return ""

    def names(self, split: str) -> list[str] | None:
        """Return the name of each image of a prepared split, in order; None where images have no names."""
        return None

    @abc.abstractmethod
    def read_splits(self, download_dir: pathlib.Path) -> Mapping[str, SplitImages]:
        """Return the images by split."""

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Tensor(
            shape=self.image_shape,
            dtype=np.uint8,
            encoding=tfds.features.Encoding.BYTES,  # twice as fast to read as a list of numbers
        )
        label = tfds.features.ClassLabel(names=self.class_names)
        return LocalInfo(
            builder=self,
            description=self.description,
            homepage=self.HOMEPAGE,
            features=tfds.features.FeaturesDict({"image": image, "label": label}),
            supervised_keys=("image", "label"),
            disable_shuffling=True,
        )

    def _example_writer(self) -> RecordWriter:
        return RecordWriter()

    def _download_and_prepare(self, *arguments: Any, **options: Any) -> None:
        # TFDS stops in the middle of a generator when a record cannot be written, and closes none.
        with contextlib.ExitStack() as self._opened:
            super()._download_and_prepare(*arguments, **options)

    def _shard_iterators_per_split(
        self, dl_manager: tfds.download.DownloadManager
    ) -> dict[str, list[Callable[[], Iterator[Any]]]]:
        splits = self.read_splits(pathlib.Path(dl_manager.download_dir) / self.name)
        shards = {split: self._shards(split, images) for split, images in splits.items()}
        self._check_space(sum(map(len, splits.values())), sum(map(len, shards.values())))
        return shards

    def _check_space(self, num_images: int, num_files: int) -> None:
        needed = disk_bytes(num_images, math.prod(self.image_shape), num_files)
        free = shutil.disk_usage(self.data_dir).free
        if needed > free:
            raise UserError(
                f"{self.name} needs {needed / 2**20:,.1f} MiB in {self.data_path.parent}, but only "
                f"{free / 2**20:,.1f} MiB are free: set data.data_dir=DIR to a folder with more space"
            )

    def _shards(self, split: str, images: SplitImages) -> list[Callable[[], Iterator[Any]]]:
        """Return iterators over the parts of a split, each of which is written to its own file, in order."""
        size = max(1, _SHARD_BYTES // math.prod(self.image_shape))
        count = max(1, math.ceil(len(images) / size))
        examples = self._opened.enter_context(contextlib.closing(self._examples(split, images)))
        return [functools.partial(itertools.islice, examples, stop) for stop in [size] * (count - 1) + [None]]

    def _examples(self, split: str, images: SplitImages) -> Generator[tuple[int, dict[str, Any]], None, None]:
        progress = self._opened.enter_context(
            progress_bar(announced=True, total=len(images), desc=f"Preparing {self.name} ({split})", unit=" images")
        )
        with contextlib.closing(iter(images)) as read:
            for index, (image, label) in enumerate(read):
                yield index, {"image": image, "label": label}
                progress.update()
        progress.close()
