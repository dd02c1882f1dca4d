"""Image data sets by name: our own builders or any prepared TFDS data set; in memory if they fit."""

import dataclasses
import hashlib
import math
import os
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.prepare import prepare
from hvq_jax.data.prepared import class_names, open_prepared, open_split
from hvq_jax.data.shuffle import permutation
from hvq_jax.data.streamed import StreamedSplit
from hvq_jax.errors import UserError

# Not the run's seed, so that every run on a data set is validated and tested on the same images.
_CARVING_SEED = 0
# Names under which data sets store the other splits.
_HELD_OUT_NAMES = {"validation": ("validation", "val", "valid", "dev"), "test": ("test",)}
_FINGERPRINTED = 1000  # images per split


@dataclasses.dataclass(frozen=True)
class Split:
    """A split of images in memory."""

    images: np.ndarray  # [N, H, W, C] uint8, or [N, h, w] int32 where the images are grids of codes
    labels: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Shape of one image: (H, W, C), or (h, w) for a grid of codes."""
        return self.images.shape[1:]

    @property
    def num_threads(self) -> int:
        """Number of threads with which reading is fastest; more than one would compete for the GIL."""
        return 1

    def read(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return images [n, ...] and labels [n] int32 of the images `rows`, int [n]."""
        return self.images[rows], self.labels[rows]


AnySplit = Split | StreamedSplit


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """The three splits of a data set: all in memory, or all streamed."""

    train: AnySplit
    validation: AnySplit
    test: AnySplit
    class_names: tuple[str, ...]
    description: str = ""  # by the authors of the data set

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Shape (H, W, C) of the images."""
        height, width, channels = self.train.image_shape
        return height, width, channels

    def fingerprint(self) -> str:
        """Return a hash of each split's length and of up to 1,000 of its images with their labels, evenly spaced.

        It identifies the data set, and is the same whether the images are in memory or streamed.

        Raises:
            UserError: one of those images is damaged.
        """
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(repr((len(split), split.image_shape)).encode())
            count = min(len(split), _FINGERPRINTED)
            for rows in np.array_split(np.arange(count) * len(split) // count, _FINGERPRINTED // 50):
                images, labels = split.read(rows)
                digest.update(images.tobytes())
                digest.update(labels.tobytes())
        return digest.hexdigest()


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    validation_size: int = 5000,
    test_size: int = 5000,
    image_size: int = 0,
    channels: int = 0,
    skip_corrupt: bool = False,
    memory_gib: float = 4.0,
) -> ImageDataset:
    """Open a data set, preparing it on disk first if it is one of ours, and load it into memory if it fits.

    Args:
        name: a key of `builders.BUILDERS`, or a TFDS data set (`name[/config][:version]`) already
            prepared in `data_dir` in array_record format, with a feature "image". Classes are those of its feature
            "label"; without an integer of that name all images are of one class, "image". A split whose labels are
            withheld (-1) counts as missing.
        data_dir: folder of prepared data sets; `None` for TFDS's default, which the environment
            variable TFDS_DATA_DIR sets.
        manual_dir: folder of the published files of one of our data sets; `None` to download them.
            Ignored if the data set is already prepared.
        validation_size: number of training images held out for validation if the data set has no
            validation split. They are the same in every run.
        test_size: the same for a test split; the images chosen do not depend on `validation_size`.
        image_size: resize the shorter side to this number of pixels and crop the centre; 0 keeps images as they
            are, and they must then all have the same size.
        channels: 1 for grey, 3 for colour; 0 for the number that the data set declares.
        skip_corrupt: skip files that cannot be read, when preparing one of our data sets from files.
        memory_gib: load the splits into memory if their total size is at most this many GiB; otherwise stream them
            from disk.

    Returns:
        The data set; grey images have one channel.

    Raises:
        UserError: the data set cannot be found, prepared or read, has an empty or missing split, or
            the sizes leave no images to train on.
    """
    if name in BUILDERS:
        builder = prepare(
            BUILDERS[name],
            data_dir=data_dir,
            manual_dir=manual_dir,
            image_size=image_size,
            channels=channels,
            skip_corrupt=skip_corrupt,
        )
    else:
        builder = open_prepared(name, data_dir)
    classes = class_names(builder)
    streamed = _open_splits(builder, num_classes=len(classes), image_size=image_size, channels=channels)
    streamed = _carve(streamed, {"validation": validation_size, "test": test_size})
    num_bytes = sum(len(split) * math.prod(split.image_shape) for split in streamed.values())
    splits: dict[str, Any] = streamed
    if num_bytes <= memory_gib * 2**30:
        splits = {name: Split(*split.load()) for name, split in streamed.items()}
    return ImageDataset(
        **splits,
        class_names=classes,
        description=" ".join(str(builder.info.description or "").split()),
    )


def _open_splits(builder: tfds.core.DatasetBuilder, **options: int) -> dict[str, StreamedSplit]:
    """Open train, and validation and test if the data set has them; splits without labels count as missing."""
    train = open_split(builder, "train", **options)
    splits = {"train": train}
    for split, names in _HELD_OUT_NAMES.items():
        for name in names:
            if split not in splits and name in builder.info.splits:
                opened = open_split(builder, name, **options)
                if opened.is_labelled:
                    # An image whose shape differs from the training images' is rejected when it is read.
                    splits[split] = dataclasses.replace(opened, image_shape=train.image_shape)
    return splits


def _carve(splits: dict[str, StreamedSplit], sizes: dict[str, int]) -> dict[str, StreamedSplit]:
    """Take missing splits, with the requested `sizes`, from the train split; all keep the stored order."""
    train, missing = splits["train"], {split: size for split, size in sizes.items() if split not in splits}
    if not missing:
        return splits
    if min(missing.values()) < 1 or sum(missing.values()) >= len(train):
        flags = " and ".join(f"--config.data.{split}_size={size}" for split, size in missing.items())
        together = "" if len(missing) == 1 else " together, and each at least 1"
        raise UserError(
            f"{flags}: must be between 1 and {len(train) - 1}{together}, because it is taken from the {len(train)} "
            "training images"
        )
    order = permutation(len(train), _CARVING_SEED)
    first, last = missing.get("validation", 0), len(train) - missing.get("test", 0)
    rows = {"train": order[first:last], "validation": order[:first], "test": order[last:]}
    return splits | {split: train.subset(np.sort(rows[split])) for split in ("train", *missing)}
