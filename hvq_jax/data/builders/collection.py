"""A user's own images in one format: their names, splits and classes, and the decoding of each."""

import abc
import collections
import contextlib
import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Generator, Iterator

import numpy as np

from hvq_jax.data.builders.classes import Classified
from hvq_jax.data.builders.decode_files import Encoded, decode_files
from hvq_jax.data.decode import ImageError
from hvq_jax.data.listing import Stamps, describe
from hvq_jax.errors import UserError
from hvq_jax.files import shows_damage

ImageShape = tuple[int, int, int]  # (H, W, C)


@dataclasses.dataclass(frozen=True)
class Collection(abc.ABC):
    """Images with a name and a label each, in an order that depends on nothing but the files."""

    root: pathlib.Path  # `root / name` says where an image is, for people
    classified: Classified
    digest: str  # if it changes, the images or their labels may have changed
    other_files: collections.Counter[str]  # the numbers of files that are not used, by kind

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classified.class_names

    @property
    def splits(self) -> dict[str, list[tuple[str, int]]]:
        """By split, the name and the label of each image."""
        return self.classified.splits

    @property
    def left_out(self) -> str:
        """The numbers of files and images that are not used, by kind."""
        return describe(self.other_files + self.classified.left_out)

    @property
    def image_shape(self) -> ImageShape | None:
        """Shape (H, W, C) of the images as they are stored; None where they may have several."""
        return None

    @abc.abstractmethod
    def read(self, split: str, image_shape: ImageShape) -> Generator[np.ndarray | ImageError, None, None]:
        """Yield each image of a split, uint8 [H, W, C], resized to `image_shape`, or why it cannot be decoded."""


class EncodedCollection(Collection):
    """Images that are PNG, JPEG or other files, whatever they are stored in."""

    @abc.abstractmethod
    def files(self, split: str) -> Generator[Encoded, None, None]:
        """Yield the path or the content of each file of a split, or why there is none."""

    def read(self, split: str, image_shape: ImageShape) -> Generator[np.ndarray | ImageError, None, None]:
        """Yield each image of a split, decoded by several threads."""
        height, width, channels = image_shape
        with (
            contextlib.closing(self.files(split)) as files,
            contextlib.closing(decode_files(files, sides=(height, width), channels=channels)) as images,
        ):
            yield from images


@contextlib.contextmanager
def damage_named(path: pathlib.Path, advice: str) -> Iterator[None]:
    """Raise UserError, naming the file, for errors of the block, which reads it; with `advice` where it is damaged."""
    try:
        yield
    except UserError:
        raise
    except MemoryError:
        raise UserError(f"{path} cannot be read: it declares more than fits into memory, and may be damaged") from None
    except Exception as error:  # libraries of formats have no common class
        reason = " ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__
        raise UserError(f"{path} cannot be read ({reason})" + (f": {advice}" if shows_damage(error) else "")) from error


def digest_of(stamps: Stamps, *choices: object) -> str:
    """Return a hash of the names, sizes and modification times of files, and of the options that change labels."""
    digest = hashlib.sha256()
    for path, (size, changed) in stamps.items():
        digest.update(b"%s\0%d\0%d\n" % (os.fsencode(path), size, changed))
    for choice in choices:
        digest.update(str(choice).encode())
    return digest.hexdigest()
