"""Data sets of arrays that are given in Python."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from hvq_jax.data.builders.array_collection import ArrayCollection, InMemory, collect_arrays
from hvq_jax.data.datasets import ImageDataset, Split
from hvq_jax.data.held_out import HELD_OUT, carve
from hvq_jax.data.options import DataOptions
from hvq_jax.errors import ArgumentError

Given = ImageDataset | ArrayLike | tuple[ArrayLike, ArrayLike] | Mapping[str, ArrayLike]

_ARGUMENT = "data"


def given_dataset(data: Given, options: DataOptions) -> ImageDataset:
    """Return the data set in `data`, in memory, as `open_dataset` would from an .npz with these arrays.

    Args:
        data: `(images, labels)`; or images alone, which have one class; or arrays by name, as in an .npz:
            `train_images`, `train_labels`, `val_images`, …. Images are [N, H, W, C] or [N, H, W], uint8 or float;
            labels [N] or [N, 1], integers or strings. Or an `ImageDataset`, which is returned as it is.
        options: size and channels of the images, sizes of missing splits, `labels` and `value_range`.

    Raises:
        UserError: the arrays have another form, or do not go together.
    """
    if isinstance(data, ImageDataset):
        return data
    collection = collect_arrays(
        {name: InMemory(array) for name, array in _by_name(data).items()},
        pathlib.Path(_ARGUMENT),
        labels=options.labels,
        value_range=options.value_range,
    )
    splits = {split: _read(collection, split, options) for split in collection.splits}
    names = {split: np.array([name.encode() for name, _ in images]) for split, images in collection.splits.items()}
    missing = [split for split in HELD_OUT if split not in splits]
    if missing:
        train, names_of_train = splits["train"], names["train"]
        for split, rows in carve(len(train), missing, options, item="image").items():
            splits[split], names[split] = Split(*train.read(rows)), names_of_train[rows]
    return ImageDataset(
        **splits,
        class_names=collection.class_names,
        description="Images that were given as arrays.",
        carved=tuple(missing),
        names=names,
        left_out=collection.left_out,
    )


def _by_name(data: Any) -> dict[str, np.ndarray]:
    """Return the arrays by the names that they would have in an .npz."""
    if isinstance(data, tuple):
        if len(data) != 2:
            raise ArgumentError(_ARGUMENT, f"must be images, or (images, labels); it is a tuple of {len(data)}")
        data = dict(zip(("images", "labels"), data, strict=True))
    arrays = data if isinstance(data, Mapping) else {"images": data}
    return {name: np.asarray(array) for name, array in arrays.items()}


def _read(collection: ArrayCollection, split: str, options: DataOptions) -> Split:
    height, width, channels = collection.image_shape
    image_shape = (*(options.sides or (height, width)), options.channels or channels)
    images = list(collection.read(split, image_shape))
    labels = [label for _, label in collection.splits[split]]
    return Split(np.stack(images), np.array(labels, np.int32))
