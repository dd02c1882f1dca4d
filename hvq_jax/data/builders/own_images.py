"""Data sets of a user's own images, in any format, fitted to one size."""

import abc
import contextlib
import dataclasses
import itertools
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Generator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.builders.collection import Collection, ImageShape
from hvq_jax.data.decode import ImageError, as_sides
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, printable, shows_damage
from hvq_jax.value_range import ValueRange, check_range

_DEFAULT_CHANNELS = 3
_SKIPPED_SHOWN = 5  # number of skipped files listed on the terminal
# Beside the records, where files were skipped: these, and those that were not, one per line.
_SKIPPED_LIST, _KEPT_LIST = "skipped.txt", "kept-{}.txt"


@dataclasses.dataclass(frozen=True)
class CollectionSplit:
    """The images of one split, decoded on demand."""

    collection: Collection
    split: str
    image_shape: ImageShape
    leave_out: Callable[[str, ImageError], None]  # called for each image that cannot be decoded

    def __len__(self) -> int:
        return len(self.collection.splits[self.split])

    def __iter__(self) -> Generator[tuple[np.ndarray, int], None, None]:
        any_read = False
        with contextlib.closing(self.collection.read(self.split, self.image_shape)) as images:
            for listed, image in itertools.zip_longest(self.collection.splits[self.split], images):
                if listed is None or image is None:
                    raise UserError(
                        f"{self.collection.root}: the {self.split} split has more or fewer images than were listed: "
                        "it is damaged, or was changed meanwhile"
                    )
                name, label = listed
                if isinstance(image, ImageError):
                    self.leave_out(name, image)
                else:
                    any_read = True
                    yield image, label
        if not any_read:
            raise UserError(
                f"{self.collection.root}: none of the {len(self)} images of the {self.split} split can be read"
            )


class OwnImages(ImageBuilder):
    """A user's own images. A subclass for each format lists them.

    Each prepared copy is named after everything it depends on: the names, sizes and modification times of the files,
    and the options. So files that have changed are prepared again, and unchanged ones are reused.
    """

    TITLE = "own images"
    OPTIONS: ClassVar[tuple[str, ...]] = ("image_size", "channels", "skip_corrupt", "labels")
    NEEDED: ClassVar[tuple[str, str]] = ("your folder of images", "FOLDER")  # for manual_dir, in words and in short
    HAS_SIZE: ClassVar[bool] = False  # whether the format stores images of one size

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        manual_dir: str | os.PathLike[str] | None = None,
        image_size: int | tuple[int, ...] = 0,
        channels: int = 0,
        skip_corrupt: bool = False,
        labels: str = "auto",
        value_range: ValueRange | None = None,
    ):
        """List the images without decoding any.

        Args:
            data_dir: folder of prepared data sets; `None` for TFDS's default.
            manual_dir: the file or folder of images.
            image_size: a side, or (height, width): resize images to cover it and crop the centre. 0: as stored, in
                formats where all images have one size.
            channels: 1 for grey, 3 for colour; 0 for the number that the format stores, colour where it may vary.
            skip_corrupt: skip images that cannot be read instead of stopping at the first.
            labels: where the classes are from: "auto", "none", or what the format has besides.
            value_range: the values of black and white of float images, in formats that have them in their `OPTIONS`.

        Raises:
            UserError: an option is missing or out of range, or the files cannot be read.
        """
        sides = as_sides(image_size)
        if manual_dir is None or not (sides or self.HAS_SIZE):
            needed = {} if manual_dir else {self.NEEDED[0]: f"data.manual_dir={self.NEEDED[1]}"}
            missing_size = {"the size of the images in pixels": "for example data.image_size=64"}
            needed |= {} if sides or self.HAS_SIZE else missing_size
            raise UserError(f"{self.name} needs {' and '.join(needed)}: set {' and '.join(needed.values())}")
        if channels not in (0, 1, 3):
            raise ArgumentError(f"channels={channels}", f"{self.name} takes 1 (grey) or 3 (colour)")
        check_range(value_range)
        self._skip_corrupt = skip_corrupt
        self._skipped: list[tuple[str, ImageError]] = []
        self._images = self.collect(full_path(manual_dir), labels, value_range)
        stored = self._images.image_shape or (0, 0, _DEFAULT_CHANNELS)
        height, width = sides or stored[:2]
        self._image_shape = (height, width, channels or stored[2])
        config = f"{height}x{width}x{self._image_shape[2]}-{self._images.digest[:16]}"
        if skip_corrupt:
            config += "-skip_corrupt"
        super().__init__(data_dir=data_dir, manual_dir=manual_dir, config=config)
        self._prepared_dir = pathlib.Path(self.data_dir)

    @classmethod
    def get_builder_config(cls, name: str, version: object = None) -> tfds.core.BuilderConfig:
        """Return a config of this name; any name is accepted."""
        return tfds.core.BuilderConfig(name=name)

    @staticmethod
    @abc.abstractmethod
    def collect(path: pathlib.Path, labels: str, value_range: ValueRange | None) -> Collection:
        """List the images of `path`, with the options of the constructor; raise UserError if they cannot be listed."""

    @property
    def image_shape(self) -> ImageShape:
        """Shape (H, W, C) of the images."""
        return self._image_shape

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self._images.class_names

    @property
    def description(self) -> str:
        """Description of the images."""
        path, (height, width, _) = pathlib.Path(self._manual_dir or ""), self._image_shape
        name = path.name.encode(errors="replace").decode()  # TFDS stores it as UTF-8
        return f"Images of the {'folder' if path.is_dir() else 'file'} {name}, fitted to {height}×{width} pixels."

    @property
    def left_out(self) -> str:
        """The numbers of files and images that are not used or cannot be read, by kind."""
        listed = sum(map(len, self._images.splits.values()))
        unreadable = listed - sum(split.num_examples for split in self.info.splits.values())
        return ", ".join(filter(None, [f"{unreadable:,} unreadable" if unreadable else "", self._images.left_out]))

    def names(self, split: str) -> list[str] | None:
        """Return the name of each image of a prepared split, with unprintable characters escaped."""
        kept = self._kept(split)
        listing = pathlib.Path(self.data_path, _KEPT_LIST.format(split))
        if listing.exists():
            kept = listing.read_text(encoding="utf-8").splitlines()
        return kept if len(kept) == self.info.splits[split].num_examples else None

    def _kept(self, split: str) -> list[str]:
        """Return the names of the images of a split that have not been skipped."""
        skipped = {name for name, _ in self._skipped}
        return [printable(name) for name, _ in self._images.splits[split] if name not in skipped]

    def read_splits(self, download_dir: pathlib.Path) -> dict[str, CollectionSplit]:
        """Return the splits, whose images are read on iteration."""
        return {
            split: CollectionSplit(self._images, split, self.image_shape, self._leave_out)
            for split in self._images.splits
        }

    def _leave_out(self, name: str, error: ImageError) -> None:
        what = printable(f"{self._images.root / name}: {error}")
        if not shows_damage(error):  # another time, or for another user, it would be read
            raise UserError(f"cannot read {what}")
        if not self._skip_corrupt:
            raise UserError(
                f"cannot read {what}; fix or remove it, or skip all files that cannot be read with "
                "data.skip_corrupt=True"
            )
        self._skipped.append((name, error))

    def _download_and_prepare(self, *arguments: Any, **options: Any) -> None:
        self._skipped.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # files that cannot be read are reported as errors
            super()._download_and_prepare(*arguments, **options)
        if self._skipped:
            lines = [printable(f"{name}: {error}") for name, error in self._skipped]
            text = "".join(f"{line}\n" for line in lines)
            # Still the temporary folder, which is renamed once everything is written.
            pathlib.Path(self.data_dir, _SKIPPED_LIST).write_text(text, encoding="utf-8")
            for split in self._images.splits:
                kept = "".join(f"{name}\n" for name in self._kept(split))
                pathlib.Path(self.data_dir, _KEPT_LIST.format(split)).write_text(kept, encoding="utf-8")
            where = self._prepared_dir / _SKIPPED_LIST
            print(f"skipped {len(lines)} files that cannot be read, listed in {where}:", file=sys.stderr)
            print(*lines[:_SKIPPED_SHOWN], *["…"][: len(lines) > _SKIPPED_SHOWN], sep="\n", file=sys.stderr)
