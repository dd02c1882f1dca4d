"""Images that stay on disk and are read and decoded on demand."""

import concurrent.futures
import contextlib
import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import numpy as np

from hvq_jax.devices.cores import number_of_cores
from hvq_jax.devices.preemption import uninterrupted
from hvq_jax.errors import UserError, stop_behind
from hvq_jax.files import shows_damage
from hvq_jax.progress import progress_bar

if TYPE_CHECKING:
    from hvq_jax.data.examples import ExampleParser  # it imports TFDS

_READ_AT_ONCE = 256  # reading a list is several times faster than reading single records
_MOST_THREADS = 16


class Records(Protocol):
    """The serialised examples of one split, with random access."""

    def __len__(self) -> int: ...

    def __getitems__(self, rows: list[int]) -> list[bytes]: ...


@dataclasses.dataclass(frozen=True)
class StreamedSplit:
    """A split of images on disk; memory holds only the images of the current call."""

    records: Records
    parse: "ExampleParser"
    rows: np.ndarray  # [N] int64: indices of the split's images in the records
    item_shape: tuple[int, ...]  # (H, W, C)
    num_classes: int
    where: str  # name of the split, its data set and the folder, for error messages

    def __len__(self) -> int:
        return len(self.rows)

    def subset(self, rows: np.ndarray) -> "StreamedSplit":
        """Return the split of the images `rows`, int [n], of this one."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images [n, H, W, C] uint8 and labels [n] int32 of the images `rows`, int [n]. Thread-safe.

        Raises:
            UserError: an image is damaged or has another shape than `item_shape`, or its label is out of range.
        """
        images = np.empty((len(rows), *self.item_shape), np.uint8)
        labels = np.empty(len(rows), np.int32)
        for place, (row, record) in enumerate(zip(self.rows[rows], self.fetch(rows), strict=True)):
            with damage_named(f"image {row} of {self.where}"):
                image, label = self.parse(record)
            if image.shape != self.item_shape:
                raise UserError(
                    f"image {row} of {self.where} is {_by(image.shape)}, but others are {_by(self.item_shape)}: "
                    "bring all to one size with data.image_size=SIZE"
                )
            if not 0 <= label < self.num_classes:
                raise UserError(
                    f"image {row} of {self.where} has the label {label}, out of range for the {self.num_classes} "
                    f"classes 0 to {self.num_classes - 1}: fix it and prepare the data set again"
                )
            images[place], labels[place] = image, label
        return images, labels

    def fetch(self, rows: np.ndarray) -> list[bytes]:
        """Return the records of the images `rows` without decoding them; raise UserError if they are damaged."""
        stored = self.rows[rows].tolist()
        # array_record starts threads: a stop meanwhile could leave one that waits for ever, and keeps the process.
        with damage_named(self.where), uninterrupted():
            try:
                return self.records.__getitems__(stored)
            except RuntimeError:
                for row in stored:  # one by one, to find the damaged one
                    with damage_named(f"image {row} of {self.where}"):
                        self.records.__getitems__([row])
                raise

    @property
    def is_labelled(self) -> bool:
        """Whether the labels are known, judged by the first one: TFDS stores -1 if the authors withhold them."""
        return self.parse.label(self.fetch(np.array([0]))[0]) != -1

    def pieces(self) -> Iterator[np.ndarray]:
        """Yield all rows in order, as int arrays of the size that is fastest to read."""
        for start in range(0, len(self), _READ_AT_ONCE):
            yield np.arange(start, min(start + _READ_AT_ONCE, len(self)))

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Return images [N, H, W, C] uint8 and labels [N] int32 of the whole split; raise like `read`."""
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
        """Number of threads with which reading is fastest."""
        # Pillow decodes without the GIL, but for smaller images threads lose more time competing for it.
        if not self.parse.is_encoded or math.prod(self.item_shape[:2]) < 64 * 64:
            return 1
        return min(number_of_cores(), _MOST_THREADS)


@contextlib.contextmanager
def damage_named(what: str) -> Iterator[None]:
    """Convert any error while reading `what` to UserError: TFDS, array_record and protobuf have no common class.

    Only where the error may come from damage, the message says how to replace what is damaged. A stop stays one, also
    where another error came of it.
    """
    try:
        yield
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if (stop := stop_behind(error)) is not None:
            raise stop from None
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        advice = ": if it is damaged, delete the data set's folder and prepare it again" if shows_damage(error) else ""
        raise UserError(f"{what} cannot be read ({reason}){advice}") from error


def _by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
