"""Image data sets in memory, by name: our own builders, or anything TFDS has prepared."""

import dataclasses
import hashlib
import os

import numpy as np
import tensorflow_datasets as tfds

from hvq_jax.data.builders import BUILDERS
from hvq_jax.data.prepare import prepare
from hvq_jax.data.prepared import open_prepared, read_split
from hvq_jax.data.shuffle import permutation
from hvq_jax.errors import UserError

# Not the run's seed: every run of a data set is validated on the same images.
_VALIDATION_SEED = 0


@dataclasses.dataclass(frozen=True)
class Split:
    """Images of one split, decoded and kept in memory."""

    images: np.ndarray  # [N, H, W, C] uint8
    labels: np.ndarray  # [N] int32

    def __len__(self) -> int:
        return len(self.labels)


@dataclasses.dataclass(frozen=True)
class ImageDataset:
    """The three splits of a data set."""

    train: Split
    validation: Split
    test: Split
    class_names: tuple[str, ...]
    description: str = ""  # in its author's words

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        _, height, width, channels = self.train.images.shape
        return height, width, channels

    def sha256(self) -> str:
        """A digest of all images and labels, in their order: what makes two data sets the same."""
        digest = hashlib.sha256()
        for split in (self.train, self.validation, self.test):
            digest.update(split.images.tobytes())
            digest.update(split.labels.tobytes())
        return digest.hexdigest()


def load_dataset(
    name: str,
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    validation_size: int = 5000,
) -> ImageDataset:
    """Loads a data set into memory, preparing it on disk first if it is one of ours.

    Args:
        name: a key of `builders.BUILDERS`, or a TFDS data set (`name[/config][:version]`) already
            prepared in `data_dir` in array_record format, with features "image" and "label".
        data_dir: where prepared data sets live; `None` is TFDS's default folder, which the
            environment variable TFDS_DATA_DIR sets.
        manual_dir: folder with the published files of one of our data sets; `None` downloads them.
            Not looked at when the data set is prepared already.
        validation_size: number of training images set aside for validation if the data set has no
            validation split of its own. Which ones is the same in every run.

    Returns:
        The data set; grey images have one channel.

    Raises:
        UserError: the data set cannot be found, prepared or read, has an empty or missing split, or
            `validation_size` leaves nothing to train on.
    """
    if name in BUILDERS:
        builder = prepare(BUILDERS[name], data_dir=data_dir, manual_dir=manual_dir)
    else:
        builder = open_prepared(name, data_dir)
    train = Split(*read_split(builder, tfds.Split.TRAIN))
    if tfds.Split.VALIDATION in builder.info.splits:
        validation = Split(*read_split(builder, tfds.Split.VALIDATION))
    else:
        train, validation = _carve_validation(train, validation_size)
    return ImageDataset(
        train=train,
        validation=validation,
        test=Split(*read_split(builder, tfds.Split.TEST)),
        class_names=tuple(builder.info.features["label"].names),
        description=" ".join(str(builder.info.description or "").split()),
    )


def _carve_validation(train: Split, size: int) -> tuple[Split, Split]:
    """Splits off `size` images chosen at random; both parts keep the stored order."""
    if not 0 < size < len(train):
        raise UserError(
            f"--config.data.validation_size={size}: must be between 1 and {len(train) - 1}, since "
            f"it is taken from the {len(train)} training images"
        )
    order = permutation(len(train), _VALIDATION_SEED)
    validation, rest = np.sort(order[:size]), np.sort(order[size:])
    return (
        Split(train.images[rest], train.labels[rest]),
        Split(train.images[validation], train.labels[validation]),
    )
