"""Images that stay on disk: read and decoded whenever they are asked for."""

import concurrent.futures
import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Protocol

import numpy as np

from hvq_jax.data.examples import ExampleParser
from hvq_jax.errors import UserError
from hvq_jax.progress import progress_bar

_READ_AT_ONCE = 256  # lists are read several times faster than single records
_MOST_THREADS = 16


class Records(Protocol):
    """Serialised examples of one split, at random."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: list[int]) -> list[bytes]: ...


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """Images of one split, of which memory holds no more than was asked for last."""

    records: Records
    parse: ExampleParser
    rows: np.ndarray  # [N] int64: which of the records make the split
    item_shape: tuple[int, ...]  # (H, W, C)
    num_classes: int
    where: str  # the split, its data set and the folder, for messages

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows: np.ndarray) -> "StreamedSplit":
        """The split that has only the images `rows`, int [n], of this one."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [n, H, W, C] uint8 and labels [n] int32 of the images `rows`, int [n]. Any thread may.

        Raises:
            UserError: an image is damaged, has another shape than `item_shape`, or a label beyond the classes.
        """
        images = np.empty((len(rows), *self.item_shape), np.uint8)
        labels = np.empty(len(rows), np.int32)
        for place, (row, record) in enumerate(zip(self.rows[rows], self.fetch(rows), strict=True)):
            with damage_named(f"image {row} of {self.where}"):
                image, label = self.parse(record)
            if image.shape != self.item_shape:
                raise UserError(
                    f"image {row} of {self.where} is {_by(image.shape)}, others are {_by(self.item_shape)}: "
                    "give all one size with --config.data.image_size=SIZE"
                )
            if not 0 <= label < self.num_classes:
                raise UserError(
                    f"image {row} of {self.where} has the label {label}, which is none of the {self.num_classes} "
                    f"classes 0 to {self.num_classes - 1}: mend it and prepare the data set again"
                )
            images[place], labels[place] = image, label
        return images, labels

    def fetch(self, rows: np.ndarray) -> list[bytes]:
        """The records of the images `rows`, not yet decoded; raises UserError where they are damaged."""
        stored = self.rows[rows].tolist()
        with damage_named(self.where):
            try:
                return self.records.__getitems__(stored)
            except RuntimeError:
                for row in stored:  # one by one, to find out which it is
                    with damage_named(f"image {row} of {self.where}"):
                        self.records.__getitems__([row])
                raise

    @property
    def is_labelled(self) -> bool:
        """Whether its labels are known, by the first one: TFDS puts -1 where the authors hold them back."""
        return self.parse.label(self.fetch(np.array([0]))[0]) != -1

    def pieces(self) -> Iterator[np.ndarray]:
        """All rows, int [n] each, in order and as many at once as are read fast."""
        for start in range(0, len(self), _READ_AT_ONCE):
            yield np.arange(start, min(start + _READ_AT_ONCE, len(self)))

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns images [N, H, W, C] uint8 and labels [N] int32 of the whole split; raises as `read` does."""
        images = np.empty((len(self), *self.item_shape), np.uint8)
        labels = np.empty(len(self), np.int32)

        def fill(rows: np.ndarray) -> int:
            images[rows], labels[rows] = self.read(rows)
            return len(rows)

        with (
            concurrent.futures.ThreadPoolExecutor(self.num_threads) as pool,
            progress_bar(total=len(self), desc="Reading images into memory", unit=" images", delay=2) as progress,
        ):
            for count in pool.map(fill, self.pieces()):
                progress.update(count)
        return images, labels

    @property
    def num_threads(self) -> int:
        """In how many threads reading is fastest."""
        # Pillow decodes without the GIL, but for smaller pictures threads lose more in fighting for it.
        if not self.parse.is_encoded or math.prod(self.item_shape[:2]) < 64 * 64:
            return 1
        return min(os.cpu_count() or 1, _MOST_THREADS)


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Turns whatever reading `what` raises into a UserError: TFDS, array_record and protobuf have no common class."""
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{what} cannot be read ({reason}): if it is damaged, delete the data set's folder and prepare it again"
        ) from error


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
