"""Image data sets by name: our own builders or any prepared TFDS data set; in memory if they fit.

TFDS is imported when a data set is opened: sampling from a run does not wait for it.
"""

import dataclasses
import hashlib
import math
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.held_out import carve
from hvq_jax.data.options import DataOptions
from hvq_jax.data.streamed import StreamedSplit
from hvq_jax.errors import UserError
from hvq_jax.options import refuse_unused

if TYPE_CHECKING:
    import tensorflow_datasets as tfds

# Names under which data sets store the other splits.
_HELD_OUT_NAMES = {"validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
# Options of builders that other data sets have as well, or may be given for any.
_OF_ALL = ("image_size", "channels", "skip_corrupt")
GIVEN = "arrays"  # the name of the data set of a run on arrays that were given in Python
_FINGERPRINTED = 1000  # images per split


@dataclasses.dataclass(frozen=True)
class Split:
    """One split in memory: images, or latents as tokens."""

    items: np.ndarray  # images [N, H, W, C] uint8, or tokens [N, h, w, 1 + c] int16 or int32
    labels: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def item_shape(self) -> tuple[int, ...]:
        """(H, W, C) of images, (h, w, 1 + c) of tokens."""
        return self.items.shape[1:]

    @property
    def num_threads(self) -> int:
        """Number of threads with which reading is fastest; more than one would compete for the GIL."""
        return 1

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return items [n, ...] and labels [n] int32 of the items `rows`, int [n]."""
        return self.items[rows], self.labels[rows]


AnySplit = Split | StreamedSplit


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """The three splits of a data set: all in memory, or all streamed."""

    train: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    description: str = ""  # by the authors of the data set
    carved: tuple[str, ...] = ()  # the splits that were taken out of train
    left_out: str = ""  # the numbers of files that were not used, by kind
    # By split: the UTF-8 name of each image [N], its path below the folder, or "train/7", its number as stored.
    names: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        height, width, channels = self.train.item_shape
        return height, width, channels

    @property
    def carved_sizes(self) -> dict[str, int]:
        """The number of images of each split that was taken out of train."""
        return {split: len(getattr(self, split)) for split in self.carved}

    @property
    def counts(self) -> str:
        """The number of images of each split, and of files left out, as one line."""
        return self.contents + (f"; left out {self.left_out}" if self.left_out else "")

    @property
    def contents(self) -> str:
        """The number of images of each split, their shape and the number of classes, as one line."""
        height, width, channels = self.image_shape
        num_classes = len(self.class_names)
        line = (
            f"{len(self.train):,} images to train on, {len(self.validation):,} for validation, {len(self.test):,} for "
            f"testing; {height}×{width}×{channels}, {num_classes:,} class{'es' if num_classes > 1 else ''}"
        )
        if self.carved:
            line += f"; {' and '.join(self.carved)} taken from train"
        return line

    def fingerprint(self) -> str:
        """Return a hash of each split's length and of up to 1,000 of its images with their labels, evenly spaced.

        It identifies the data set, and is the same whether the images are in memory or streamed.

        Raises:
            UserError: one of those images is damaged.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(repr((len(split), split.item_shape)).encode())
            count = min(len(split), _FINGERPRINTED)
            for rows in np.array_split(np.arange(count) * len(split) // count, _FINGERPRINTED // 50):
                images, labels = split.read(rows)
                digest.update(images.tobytes())
                digest.update(labels.tobytes())
        return digest.hexdigest()


def data_title(name: str) -> str:
    """Return the title of the data set `name`, for plots: in words where it is one of ours, else the name.

    >>> data_title("fashion_mnist_mini"), data_title("tf_flowers")
    ('Fashion-MNIST mini', 'tf_flowers')
    """
    if name == GIVEN:
        return "own arrays"
    return BUILDERS[name].TITLE if name in BUILDERS else name


def load_dataset(name: str, **options: Any) -> ImageDataset:
    """Open the data set `name` with the other fields of `DataOptions`; see `open_dataset`."""
    given = {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in options.items()}
    return open_dataset(DataOptions(name=name, **given))


def open_dataset(options: DataOptions) -> ImageDataset:
    """Open a data set, preparing it on disk first if it is one of ours, and read it into memory if it fits.

    `options.name` is a key of `builders.BUILDERS`, or a TFDS data set (`name[/config][:version]`) already prepared in
    `data_dir` in array_record format, with a feature "image". Its classes are those of its feature "label"; without an
    integer of that name all images are of one class, "image". A split whose labels are held back (-1) counts as
    missing. Which images are set aside for a missing split is the same in every run.

    Returns:
        The data set; grey images have one channel.

    Raises:
        UserError: the data set cannot be found, prepared or read, has an empty or missing split, or the sizes leave
            nothing to train on.
    """
    if options.name == GIVEN:
        raise UserError(
            "the data set is arrays that were given in Python: give them again, with "
            "hvq_jax.train(config, workdir, data=...)"
        )
    from hvq_jax.data.builders.base import ImageBuilder
    from hvq_jax.data.open_tfds import class_names, open_prepared
    from hvq_jax.data.prepare import prepare

    taken = BUILDERS[options.name].OPTIONS if options.name in BUILDERS else ()
    refuse_unused(options, "name", (*taken, *_OF_ALL), {name: builder.OPTIONS for name, builder in BUILDERS.items()})
    if options.name in BUILDERS:
        given = {name: getattr(options, name) for name in ("data_dir", "manual_dir", *taken)}
        builder = prepare(BUILDERS[options.name], **given)
    else:
        builder = open_prepared(options.name, options.data_dir)
    classes = class_names(builder)
    streamed = _open_splits(builder, num_classes=len(classes), sides=options.sides, channels=options.channels)
    missing = [split for split in _HELD_OUT_NAMES if split not in streamed]
    if missing:
        train = streamed["train"]
        rows = carve(len(train), missing, options, item="image")
        streamed |= {split: train.subset(rows[split]) for split in rows}
    num_bytes = sum(len(split) * math.prod(split.item_shape) for split in streamed.values())
    splits: dict[str, Any] = streamed
    if num_bytes <= options.memory_gib * 2**30:
        splits = {name: Split(*split.load()) for name, split in streamed.items()}
    return ImageDataset(
        **splits,
        class_names=classes,
        description=" ".join(str(builder.info.description or "").split()),
        carved=tuple(missing),
        names={
            name: _names(builder, "train" if name in missing else name, split.rows) for name, split in streamed.items()
        },
        left_out=builder.left_out if isinstance(builder, ImageBuilder) else "",
    )


def _names(builder: "tfds.core.DatasetBuilder", stored: str, rows: np.ndarray) -> np.ndarray:
    """Return the names of the images `rows` of the stored split, UTF-8 bytes [n]."""
    from hvq_jax.data.builders.base import ImageBuilder

    names = builder.names(stored) if isinstance(builder, ImageBuilder) else None
    return np.array([(names[row] if names else f"{stored}/{row}").encode() for row in rows.tolist()])


def _open_splits(builder: "tfds.core.DatasetBuilder", **options: Any) -> dict[str, StreamedSplit]:
    """Open train, and validation and test if the data set has them; splits without labels count as missing."""
    from hvq_jax.data.open_tfds import open_split

    train = open_split(builder, "train", **options)
    splits = {"train": train}
    for split, names in _HELD_OUT_NAMES.items():
        for name in names:
            if split not in splits and name in builder.info.splits:
                opened = open_split(builder, name, **options)
                if opened.is_labelled:
                    # An image of another shape than those to train on is refused when it is read.
                    splits[split] = dataclasses.replace(opened, item_shape=train.item_shape)
    return splits
