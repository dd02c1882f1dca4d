"""Checks of the arrays that a user gives to a trained run: each returns the array in the form that programs take."""

import numpy as np
from numpy.typing import ArrayLike

from hvq_jax.errors import ArgumentError
from hvq_jax.value_range import ValueRange, check_range, resolve_range


def check_images(
    images: ArrayLike, image_shape: tuple[int, int, int], value_range: ValueRange | None = None, name: str = "images"
) -> np.ndarray:
    """Return images `[N, H, W, C]` as they are if uint8, else as float32 in [-1, 1].

    >>> check_images(np.zeros((28, 28), np.uint8), (28, 28, 1)).shape
    (1, 28, 28, 1)
    >>> check_images(np.full((1, 2, 2, 3), 0.5), (2, 2, 3), value_range=(0, 1)).max().item()
    0.0

    Args:
        images: [N, H, W, C], or one, [H, W, C]; of grey images C may be omitted. uint8, or float.
        image_shape: (H, W, C) of the run.
        value_range: the values of black and white of float images, (-1, 1) or (0, 1). If it is None, they are in
            [-1, 1], and must have a negative value: all in [0, 1], they could be meant either way.
        name: the argument's name, for errors.

    Raises:
        ArgumentError: the images are not of this shape or range.
    """
    given = np.asarray(images)
    shaped = _with_all_axes(given, image_shape)
    if shaped is None or not len(shaped):
        height, width, channels = image_shape
        shapes = f"[N, {height}, {width}, {channels}]" + (f" or [N, {height}, {width}]" if channels == 1 else "")
        raise ArgumentError(name, f"must be {shapes}, or one image; the shape is {given.shape}")
    check_range(value_range)
    if given.dtype == np.uint8:
        if value_range is not None:
            raise ArgumentError(f"value_range={value_range}", f"is for float images, but {name} are uint8: omit it")
        return shaped
    if given.dtype.kind != "f" and given.dtype.name != "bfloat16":
        raise ArgumentError(name, f"must be uint8, or float in [-1, 1]; the dtype is {given.dtype}")
    return _in_model_range(shaped.astype(np.float32), value_range, name)


def _with_all_axes(images: np.ndarray, image_shape: tuple[int, int, int]) -> np.ndarray | None:
    """Return images as `[N, H, W, C]`, None if they are not of this shape."""
    without_channels = image_shape[:2] if image_shape[-1] == 1 else None
    if images.shape in (image_shape, without_channels):
        return images.reshape(1, *image_shape)
    if images.ndim and images.shape[1:] in (image_shape, without_channels):
        return images.reshape(-1, *image_shape)
    return None


def _in_model_range(images: np.ndarray, value_range: ValueRange | None, name: str) -> np.ndarray:
    low, _ = resolve_range(float(images.min()), float(images.max()), value_range, name)
    return images if low else 2 * images - 1


def check_mask(mask: ArrayLike, grid: tuple[int, int]) -> np.ndarray:
    """Return the mask `[h, w]` bool; raise ArgumentError for another shape or dtype.

    >>> check_mask(np.ones((2, 3), bool), (2, 3)).shape
    (2, 3)
    """
    given = np.asarray(mask)
    if given.shape != grid or given.dtype != bool:
        raise ArgumentError(
            "mask",
            f"must be bool {list(grid)}, the positions of a latent, True where they are kept; it is {given.dtype} of "
            f"shape {given.shape}",
        )
    return given


def is_prefix(mask: np.ndarray) -> bool:
    """Return whether the True positions of `mask` `[h, w]` come before all others in raster order.

    >>> is_prefix(np.array([[True, True], [True, False]])), is_prefix(np.array([[True, False], [True, False]]))
    (True, False)
    """
    flat = mask.reshape(-1)
    return bool(flat[: np.count_nonzero(flat)].all())


def check_integers(values: ArrayLike, shape: tuple[int, ...], high: int | None, name: str) -> np.ndarray:
    """Return integers `[N, *shape]` as int32, of one item too; raise ArgumentError unless they are in [0, high).

    >>> check_integers([[0, 4]], (1, 2), 5, "indices").shape
    (1, 1, 2)
    """
    given = np.asarray(values)
    if given.dtype.kind not in "iu":
        raise ArgumentError(name, f"must be integers; the dtype is {given.dtype}")
    shaped = _of_items(given, shape, name)
    if high is not None and not (shaped.min() >= 0 and shaped.max() < high):
        raise ArgumentError(name, f"must be from 0 to {high - 1}; they are from {shaped.min()} to {shaped.max()}")
    return shaped.astype(np.int32)


def check_floats(values: ArrayLike, shape: tuple[int, ...], name: str) -> np.ndarray:
    """Return numbers `[N, *shape]` as float32, of one item too; raise ArgumentError unless all are finite.

    >>> check_floats([1, 2], (2,), "gains").tolist()
    [[1.0, 2.0]]
    """
    given = np.asarray(values)
    if given.dtype.kind not in "fiu" and given.dtype.name != "bfloat16":
        raise ArgumentError(name, f"must be numbers; the dtype is {given.dtype}")
    shaped = _of_items(given, shape, name).astype(np.float32)
    if not np.isfinite(shaped).all():
        raise ArgumentError(name, "must be finite everywhere")
    return shaped


def _of_items(values: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if values.shape == shape:
        return values[None]
    if values.ndim != len(shape) + 1 or values.shape[1:] != shape or not len(values):
        raise ArgumentError(name, f"must be [N, {', '.join(map(str, shape))}]; the shape is {values.shape}")
    return values


def check_same_length(**arrays: np.ndarray | None) -> None:
    """Raise ArgumentError unless all arrays that are given have as many items as the first.

    >>> check_same_length(indices=np.zeros(2), gains=np.zeros(3))
    Traceback (most recent call last):
    hvq_jax.errors.ArgumentError: gains: there are 3, but 2 indices
    """
    (first, expected), *others = ((name, values) for name, values in arrays.items() if values is not None)
    for name, values in others:
        if len(values) != len(expected):
            raise ArgumentError(name, f"there are {len(values)}, but {len(expected)} {first}")
