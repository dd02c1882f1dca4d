"""The image files that a user passes through a run."""

import dataclasses
import os
import pathlib
import warnings
from collections.abc import Iterator

import numpy as np

from hvq_jax.data.decode import ImageError, read_image
from hvq_jax.data.listing import ENDINGS, describe, find_images
from hvq_jax.errors import UserError
from hvq_jax.files import full_path, printable


@dataclasses.dataclass(frozen=True)
class ImageInputs:
    """Image files, read when they are needed, as they would be for training."""

    root: pathlib.Path
    paths: list[str]  # below `root`, sorted
    _said: list[str] = dataclasses.field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def find(cls, path: str) -> "ImageInputs":
        """Return one image file, or all below a folder (see `find_images`); print what is left out.

        Raises:
            UserError: there is no such file or folder, or no image in it.
        """
        given = full_path(path)
        if not os.path.lexists(given):
            raise UserError(f"{printable(path)}: no such file or folder")
        if not given.is_dir():
            return cls(given.parent, [given.name])
        listing = find_images(given)
        others = describe(listing.left_out)
        if not listing.images:
            only = f", only {others}" if others else ""
            raise UserError(f"{printable(path)}: no {', '.join(ENDINGS)} file in this folder{only}")
        if others:
            print(f"{printable(path)}: left out {others}")
        return cls(given, list(listing.images))

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def files(self) -> list[pathlib.Path]:
        """The full paths."""
        return [self.root / path for path in self.paths]

    @property
    def names(self) -> list[str]:
        """The paths, with every character that cannot be printed escaped."""
        return [printable(path) for path in self.paths]

    @property
    def stems(self) -> list[str]:
        """The paths as file names of what is made from the images: without .png, which is added to them again."""
        return [path.removesuffix(".png") for path in self.paths]

    def read(self, image_shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
        """Yield each image, uint8 `[H, W, C]`; print at the end how many had another size, the first time.

        Raises:
            UserError: a file cannot be read or is no image.
        """
        height, width, channels = image_shape
        num_fitted = 0
        for path in self.paths:
            try:
                with warnings.catch_warnings():
                    warnings.filterwarnings("ignore", module="PIL")  # what is of consequence is an error
                    image, is_fitted = read_image(self.root / path, (height, width), channels)
            except ImageError as error:
                where = printable(self.root / path)
                raise UserError(f"{where} cannot be read as an image: {printable(str(error))}") from None
            num_fitted += is_fitted
            yield image
        line = f"{num_fitted:,} of {len(self):,} images fitted to {width}×{height}"
        if num_fitted and line not in self._said:
            self._said.append(line)
            print(line)
