"""Any folder of images, brought to one size."""

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
from hvq_jax.data.decode import ImageError
from hvq_jax.data.decode_files import decode_files
from hvq_jax.data.image_files import ImageFiles, list_images
from hvq_jax.errors import UserError

_DEFAULT_CHANNELS = 3
_SKIPPED_SHOWN = 5  # on the terminal
_SKIPPED_LIST = "skipped.txt"  # beside the records: all of them, a line each


@dataclasses.dataclass(frozen=True)
class FileSplit:
    """The images of one split, decoded as they are asked for."""

    files: ImageFiles
    split: str
    image_shape: tuple[int, int, int]  # (H, W, C), H = W
    leave_out: Callable[[str, ImageError], None]  # is given what cannot be decoded

    def __len__(self) -> int:
        return len(self.files.splits[self.split])

    def __iter__(self) -> Generator[tuple[np.ndarray, int], None, None]:
        folder, listed = self.files.folder, self.files.splits[self.split]
        size, _, channels = self.image_shape
        paths = (folder / path for path, _ in listed)
        any_read = False
        with contextlib.closing(decode_files(paths, image_size=size, channels=channels)) as images:
            for (path, label), image in zip(listed, images, strict=True):
                if isinstance(image, ImageError):
                    self.leave_out(path, image)
                else:
                    any_read = True
                    yield image, label
        if not any_read:
            raise UserError(f"{folder}: none of the {len(self)} images of the {self.split} split can be read")


class ImageFolder(ImageBuilder):
    """The images of a folder and their classes; `list_images` says how it may be laid out.

    Each prepared copy has a name of its own, made of all that it depends on: the names, sizes and times of change of
    the files, and the options. So a folder that has changed is prepared anew, and one that has not is found at once.
    """

    OPTIONS = ("image_size", "channels", "skip_corrupt")

    def __init__(
        self,
        *,
        data_dir: str | os.PathLike[str] | None = None,
        manual_dir: str | os.PathLike[str] | None = None,
        image_size: int = 0,
        channels: int = 0,
        skip_corrupt: bool = False,
    ):
        """Lists the folder; no image is read yet.

        Args:
            data_dir: where prepared data sets live; `None` is TFDS's default folder.
            manual_dir: the folder of images.
            image_size: the shorter side is resized to it, then the centre cropped; in pixels.
            channels: 1 grey, 3 colour; 0 is colour.
            skip_corrupt: leaves out the files that cannot be read, instead of stopping at the first.

        Raises:
            UserError: an option is missing or out of range, or the folder is none that `list_images` reads.
        """
        if manual_dir is None:
            raise UserError(f"{self.name} needs your folder of images: name it with --config.data.manual_dir=FOLDER")
        if image_size <= 0:
            raise UserError(
                f"{self.name} needs the size to bring all images to, in pixels: --config.data.image_size=64, say"
            )
        if channels not in (0, 1, 3):
            raise UserError(f"--config.data.channels={channels}: {self.name} takes 1 (grey) or 3 (colour)")
        self._size = image_size
        self._channels = channels or _DEFAULT_CHANNELS
        self._skip_corrupt = skip_corrupt
        self._skipped: list[tuple[str, ImageError]] = []
        self._files = list_images(pathlib.Path(manual_dir).expanduser().absolute())
        config = f"{image_size}x{image_size}x{self._channels}-{self._files.digest[:16]}"
        if skip_corrupt:
            config += "-skip_corrupt"
        super().__init__(data_dir=data_dir, manual_dir=manual_dir, config=config)
        self._prepared_dir = pathlib.Path(self.data_dir)

    @classmethod
    def get_builder_config(cls, name: str, version: object = None) -> tfds.core.BuilderConfig:
        """Returns the config of this name; any will do."""
        return tfds.core.BuilderConfig(name=name)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self._size, self._size, self._channels

    @property
    def class_names(self) -> tuple[str, ...]:
        """Sorted."""
        return self._files.class_names

    @property
    def description(self) -> str:
        """Where the images are from."""
        name = self._files.folder.name.encode(errors="replace").decode()  # TFDS keeps it as UTF-8
        return f"Images of the folder {name}, fitted to {self._size}×{self._size} pixels."

    def read_splits(self, download_dir: pathlib.Path) -> dict[str, FileSplit]:
        """Returns the splits, whose files are yet to be read."""
        return {split: FileSplit(self._files, split, self.image_shape, self._leave_out) for split in self._files.splits}

    def _leave_out(self, path: str, error: ImageError) -> None:
        if not self._skip_corrupt:
            raise UserError(
                f"cannot read {self._files.folder / path}: {error}; mend or remove it, or leave out all files that "
                "cannot be read with --config.data.skip_corrupt=True"
            )
        self._skipped.append((path, error))

    def _download_and_prepare(self, *arguments: Any, **options: Any) -> None:
        self._skipped.clear()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # a file is read or it is not
            super()._download_and_prepare(*arguments, **options)
        if self._skipped:
            lines = [f"{path}: {error}" for path, error in self._skipped]
            text = "".join(f"{line}\n" for line in lines)
            # Still in the folder that takes its name when all is written.
            pathlib.Path(self.data_dir, _SKIPPED_LIST).write_bytes(text.encode("utf-8", "surrogateescape"))
            where = self._prepared_dir / _SKIPPED_LIST
            print(f"left out {len(lines)} files that cannot be read, listed in {where}:", file=sys.stderr)
            print(*lines[:_SKIPPED_SHOWN], *["…"][: len(lines) > _SKIPPED_SHOWN], sep="\n", file=sys.stderr)
