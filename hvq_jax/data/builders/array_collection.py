"""Images and labels as NumPy arrays, by name, that are read in pieces or are in memory."""

import collections
import contextlib
import dataclasses
import functools
import pathlib
from collections.abc import Container, Generator, Mapping, Sequence
from typing import Protocol

import numpy as np

from hvq_jax.data.builders.classes import Labelled, RawLabel, classify
from hvq_jax.data.builders.collection import Collection, ImageShape, damage_named
from hvq_jax.data.decode import MODES, as_array, as_image, fit_image
from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.registry import check_choice
from hvq_jax.value_range import ValueRange, resolve_range

# Names of the images and labels of each split.
_NAMES = {
    "train": (
        ("train_images", "train_labels"),
        ("x_train", "y_train"),
        ("images", "labels"),
        ("x", "y"),
        ("arr_0", "arr_1"),
    ),
    "validation": (
        ("validation_images", "validation_labels"),
        ("val_images", "val_labels"),
        ("valid_images", "valid_labels"),
        ("x_val", "y_val"),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
_CLASS_NAMES = "class_names"  # of the names of the classes that integer labels number
_ROWS_AT_ONCE = 1024  # of arrays in memory

KNOWN = frozenset((_CLASS_NAMES, *(name for pairs in _NAMES.values() for pair in pairs for name in pair)))
ADVICE = "write it anew, without Python objects"  # where a file of arrays is damaged


class Rows(Protocol):
    """An array that is read in pieces."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""

    def pieces(self) -> Generator[np.ndarray, None, None]:
        """Yield the array in order, as arrays of some rows [n, ...]."""


@dataclasses.dataclass(frozen=True)
class InMemory:
    """An array in memory, as `Rows`."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype:
        """The dtype."""
        return self.array.dtype

    def pieces(self) -> Generator[np.ndarray, None, None]:
        """Yield the array in parts, since floats are copied."""
        for start in range(0, len(self.array), _ROWS_AT_ONCE):
            yield self.array[start : start + _ROWS_AT_ONCE]


@dataclasses.dataclass(frozen=True)
class ArrayCollection(Collection):
    """Images in arrays [N, H, W, C] or [N, H, W], uint8 or float, one for each split."""

    arrays: dict[str, Rows]  # by split
    given_range: ValueRange | None

    @property
    def image_shape(self) -> ImageShape:
        """Shape (H, W, C) of the images."""
        return _image_shape(self.arrays["train"])

    def read(self, split: str, image_shape: ImageShape) -> Generator[np.ndarray, None, None]:
        """Yield each image, converted to uint8 and resized."""
        with damage_named(self.root, ADVICE), contextlib.closing(self.arrays[split].pieces()) as pieces:
            for piece in pieces:
                for image in self._as_uint8(piece).reshape(-1, *self.image_shape):
                    yield _fitted(image, image_shape)

    def _as_uint8(self, images: np.ndarray) -> np.ndarray:
        if images.dtype == np.uint8:
            return images
        low, high = resolve_range(float(images.min()), float(images.max()), self.value_range, str(self.root))
        return np.rint((images - np.float32(low)) * np.float32(255 / (high - low))).astype(np.uint8)

    @functools.cached_property
    def value_range(self) -> ValueRange:
        """The values of black and white of float images: as given, or by a pass over all of them."""
        if self.given_range is not None:
            return self.given_range
        floats = [array for array in self.arrays.values() if array.dtype.kind == "f"]
        with damage_named(self.root, ADVICE):
            ends = np.array([(piece.min(), piece.max()) for array in floats for piece in array.pieces()], float)
        lowest, highest = ends[:, 0].min(), ends[:, 1].max()
        return resolve_range(float(lowest), float(highest), None, str(self.root), "data.value_range")


def collect_arrays(
    arrays: Mapping[str, Rows],
    where: pathlib.Path,
    *,
    labels: str,
    value_range: ValueRange | None,
    digest: str = "",
    left_out: collections.Counter[str] | None = None,
) -> ArrayCollection:
    """Return the images of arrays by name, as in `_NAMES`; images and labels of one split are named alike.

    Args:
        arrays: images [N, H, W] or [N, H, W, C] uint8 or float, C = 1 or 3; labels [N] or [N, 1], integers or strings.
        where: where they are from, for errors.
        labels: "auto", or "none" to pass over the labels.
        value_range: the values of black and white of float images.
        digest: as in `Collection`.
        left_out: numbers of what is not used.

    Raises:
        UserError: there are no training images, or arrays have another form or do not go together.
    """
    check_choice("labels", labels, ("auto", "none"))
    names = {split: _find_names(split, arrays, where) for split in _NAMES}
    if names["train"] is None:
        known = " or ".join(images for images, _ in _NAMES["train"])
        raise UserError(f"{where} has no array {known}; it has {', '.join(sorted(arrays)) or 'none that is known'}")
    images: dict[str, Rows] = {}
    labelled: dict[str, Labelled] = {}
    for split, pair in names.items():
        if pair is not None:
            images[split] = _checked_images(arrays[pair[0]], f"{where}: {pair[0]}")
            given = arrays.get(pair[1]) if labels == "auto" else None
            values = _read_labels(given, images[split].shape[0], f"{where}: {pair[1]}") if given else None
            named = [f"{pair[0]}/{row}" for row in range(images[split].shape[0])]
            labelled[split] = list(zip(named, values or [None] * len(named), strict=True))
    for split, array in images.items():
        if _image_shape(array) != (shape := _image_shape(images["train"])):
            raise UserError(f"{where}: the {split} images are {_image_shape(array)}, but those of train are {shape}")
    if value_range is not None and all(array.dtype == np.uint8 for array in images.values()):
        raise ArgumentError(
            f"value_range={value_range}", f"is for float images, but those of {where} are uint8: omit it"
        )
    class_names = _read_class_names(arrays.get(_CLASS_NAMES), where) if labels == "auto" else None
    classified = classify(labelled, str(where), class_names)
    return ArrayCollection(
        root=where,
        classified=classified,
        digest=digest,
        other_files=collections.Counter(left_out),
        arrays={split: images[split] for split in classified.splits},
        given_range=value_range,
    )


def _find_names(split: str, names: Container[str], where: pathlib.Path) -> tuple[str, str] | None:
    """Return the names of the images and labels of a split, None where it has no images."""
    found = [pair for pair in _NAMES[split] if pair[0] in names]
    if len(found) > 1:
        raise UserError(f"{where}: {' and '.join(images for images, _ in found)} both name the {split} images")
    for images, labels in _NAMES[split]:
        if labels in names and images not in names:
            raise UserError(f"{where} has {labels}, but no {images}")
    return found[0] if found else None


def _checked_images(array: Rows, where: str) -> Rows:
    """Return `array`; raise UserError unless it holds images."""
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise UserError(f"{where} must be uint8, or float with data.value_range, not {array.dtype}: convert it")
    shape = array.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[3] not in (1, 3)):
        swapped = len(shape) == 4 and shape[1] in (1, 3)
        advice = "transpose it with (0, 2, 3, 1)" if swapped else "reshape it"
        raise UserError(f"{where} must be [N, H, W], or [N, H, W, C] with C = 1 or 3; its shape is {shape}: {advice}")
    if 0 in shape:
        raise UserError(f"{where} is empty: its shape is {shape}")
    return array


def _read_labels(array: Rows, count: int, where: str) -> Sequence[RawLabel]:
    """Return the `count` labels of [N] or [N, 1]."""
    if len(array.shape) == 2 and array.shape[1] > 1:
        raise UserError(
            f"{where} has {array.shape[1]} values per image (multi-label or one-hot), but must be [N] or [N, 1]: store "
            "the number of one class per image, or set data.labels=none"
        )
    if array.shape not in ((count,), (count, 1)):
        raise UserError(f"{where} must be [{count}] or [{count}, 1], one for each image; its shape is {array.shape}")
    if array.dtype.kind not in "iubU":
        raise UserError(f"{where} must be integers or strings, not {array.dtype}: convert it, or set data.labels=none")
    values = np.concatenate([piece.reshape(-1) for piece in array.pieces()])
    return (values.astype(np.int64) if values.dtype.kind in "iub" else values).tolist()


def _read_class_names(array: Rows | None, where: pathlib.Path) -> list[str] | None:
    if array is None:
        return None
    if len(array.shape) != 1 or array.dtype.kind != "U":
        raise UserError(f"{where}: {_CLASS_NAMES} must be strings [K], not {array.dtype} {array.shape}")
    return np.concatenate(list(array.pieces())).tolist()


def _image_shape(array: Rows) -> ImageShape:
    _, height, width, *channels = array.shape
    return height, width, channels[0] if channels else 1


def _fitted(image: np.ndarray, image_shape: ImageShape) -> np.ndarray:
    """Return an image [h, w, c] uint8 of `image_shape`, (H, W, C)."""
    if image.shape == image_shape:
        return image
    height, width, channels = image_shape
    converted = as_image(image).convert(MODES[channels])
    return as_array(fit_image(converted, (height, width)))
