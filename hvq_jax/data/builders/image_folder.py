"""A data set from any folder of images, fitted to one size."""

import contextlib
import dataclasses
import os
import pathlib
import sys
import warnings
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.builders.decode_files import decode_files
from hvq_jax.data.builders.image_files import ImageFiles, list_images
from hvq_jax.data.decode import ImageError, as_sides
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import full_path, printable, shows_damage

_DEFAULT_CHANNELS = 3
_SKIPPED_SHOWN = 5  # number of skipped files listed on the terminal
# Beside the records, where files were skipped: these, and those that were not, one per line.
_SKIPPED_LIST, _KEPT_LIST = "skipped.txt", "kept-{}.txt"


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """The images of one split, decoded on demand."""

    files: ImageFiles
    split: str
    image_shape: tuple[int, int, int]  # (H, W, C)
    leave_out: Callable[[str, ImageError], None]  # called for each file that cannot be decoded

    def __len__(self) -> int:
        return len(self.files.splits[self.split])

    def __iter__(self) -> Generator[tuple[np.ndarray, int], None, None]:
        folder, listed = self.files.folder, self.files.splits[self.split]
        height, width, channels = self.image_shape
        paths = (folder / path for path, _ in listed)
        any_read = False
        with contextlib.closing(decode_files(paths, sides=(height, width), channels=channels)) as images:
            for (path, label), image in zip(listed, images, strict=True):
                if isinstance(image, ImageError):
                    self.leave_out(path, image)
                else:
                    any_read = True
                    yield image, label
        if not any_read:
            raise UserError(f"{folder}: none of the {len(self)} images of the {self.split} split can be read")


class ImageFolder(ImageBuilder):
    """The images of a folder and their classes, in one of the layouts of `list_images`.

    Each prepared copy is named after everything it depends on: the names, sizes and modification times of the files,
    and the options. So a folder that has changed is prepared again, and an unchanged one is reused.
    """

    OPTIONS = ("image_size", "channels", "skip_corrupt")

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        manual_dir: str | os.PathLike[str] | None = None,
        image_size: int | tuple[int, ...] = 0,
        channels: int = 0,
        skip_corrupt: bool = False,
    ):
        """List the folder without reading any image.

        Args:
            data_dir: folder of prepared data sets; `None` for TFDS's default.
            manual_dir: the folder of images.
            image_size: a side, or (height, width): resize images to cover it and crop the centre.
            channels: 1 for grey, 3 for colour; 0 for the default, colour.
            skip_corrupt: skip files that cannot be read instead of stopping at the first.

        Raises:
            UserError: an option is missing or out of range, or `list_images` cannot read the folder.
        """
        sides = as_sides(image_size)
        if manual_dir is None or sides is None:
            needed = {} if manual_dir else {"your folder of images": "data.manual_dir=FOLDER"}
            needed |= {} if sides else {"the size of the images in pixels": "for example data.image_size=64"}
            raise UserError(f"{self.name} needs {' and '.join(needed)}: set {' and '.join(needed.values())}")
        if channels not in (0, 1, 3):
            raise ArgumentError(f"channels={channels}", f"{self.name} takes 1 (grey) or 3 (colour)")
        self._sides = sides
        self._channels = channels or _DEFAULT_CHANNELS
        self._skip_corrupt = skip_corrupt
        self._skipped: list[tuple[str, ImageError]] = []
        self._files = list_images(full_path(manual_dir))
        config = f"{sides[0]}x{sides[1]}x{self._channels}-{self._files.digest[:16]}"
        if skip_corrupt:
            config += "-skip_corrupt"
        super().__init__(data_dir=data_dir, manual_dir=manual_dir, config=config)
        self._prepared_dir = pathlib.Path(self.data_dir)

    @classmethod
    def get_builder_config(cls, name: str, version: object = None) -> tfds.core.BuilderConfig:
        """Return a config of this name; any name is accepted."""
        return tfds.core.BuilderConfig(name=name)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the images."""
        return *self._sides, self._channels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, sorted."""
        return self._files.class_names

    @property
    def description(self) -> str:
        """Description of the images."""
        name = self._files.folder.name.encode(errors="replace").decode()  # TFDS stores it as UTF-8
        return f"Images of the folder {name}, fitted to {self._sides[0]}×{self._sides[1]} pixels."

    @property
    def left_out(self) -> str:
        """The numbers of files that are no images or cannot be read, by kind."""
        listed = sum(map(len, self._files.splits.values()))
        unreadable = listed - sum(split.num_examples for split in self.info.splits.values())
        return ", ".join(filter(None, [f"{unreadable:,} unreadable" if unreadable else "", self._files.left_out]))

    def names(self, split: str) -> list[str] | None:
        """Return the path below the folder of each image of a prepared split, with unprintable characters escaped."""
        kept = self._kept(split)
        listing = pathlib.Path(self.data_path, _KEPT_LIST.format(split))
        if listing.exists():
            kept = listing.read_text(encoding="utf-8").splitlines()
        return kept if len(kept) == self.info.splits[split].num_examples else None

    def _kept(self, split: str) -> list[str]:
        """Return the names of the files of a split that have not been skipped."""
        skipped = {path for path, _ in self._skipped}
        return [printable(path) for path, _ in self._files.splits[split] if path not in skipped]

    def read_splits(self, download_dir: pathlib.Path) -> dict[str, FileSplit]:
        """Return the splits, whose files are read on iteration."""
        return {split: FileSplit(self._files, split, self.image_shape, self._leave_out) for split in self._files.splits}

    def _leave_out(self, path: str, error: ImageError) -> None:
        what = printable(f"{self._files.folder / path}: {error}")
        if not shows_damage(error):  # another time, or for another user, it would be read
            raise UserError(f"cannot read {what}")
        if not self._skip_corrupt:
            raise UserError(
                f"cannot read {what}; fix or remove it, or skip all files that cannot be read with "
                "data.skip_corrupt=True"
            )
        self._skipped.append((path, error))

    def _download_and_prepare(self, *arguments: Any, **options: Any) -> None:
        self._skipped.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # files that cannot be read are reported as errors
            super()._download_and_prepare(*arguments, **options)
        if self._skipped:
            lines = [printable(f"{path}: {error}") for path, error in self._skipped]
            text = "".join(f"{line}\n" for line in lines)
            # Still the temporary folder, which is renamed once everything is written.
            pathlib.Path(self.data_dir, _SKIPPED_LIST).write_text(text, encoding="utf-8")
            for split in self._files.splits:
                kept = "".join(f"{name}\n" for name in self._kept(split))
                pathlib.Path(self.data_dir, _KEPT_LIST.format(split)).write_text(kept, encoding="utf-8")
            where = self._prepared_dir / _SKIPPED_LIST
            print(f"skipped {len(lines)} files that cannot be read, listed in {where}:", file=sys.stderr)
            print(*lines[:_SKIPPED_SHOWN], *["…"][: len(lines) > _SKIPPED_SHOWN], sep="\n", file=sys.stderr)
