"""Random augmentations of training images that preserve their class and size.

The random numbers depend only on the seed, the epoch and the index of the image. Within an epoch, an image is therefore
augmented in the same way on any number of hosts, at any place in its batch, and whether or not the run was resumed.

Each augmentation maps every row and column of the new image to a position in the old one. These maps are composed
without rounding in between, and the images are sampled once. Positions are integers, in units of 1/256 pixel.
"""

import dataclasses

import numpy as np

from hvq_jax.options import Options, option

_LARGEST_RATIO = 4 / 3  # of a resized crop's width to its height, both relative to the image's; the smallest is 3/4
_NUM_DRAWS = 7  # per image
_PIECE_BYTES = 1 << 17  # of images sampled at once; larger intermediate arrays take 1.5 times as long
_PURPOSE = 1  # separates these draws from the shuffling of the epoch, which uses the same seed


@dataclasses.dataclass(frozen=True)
class Augmentation(Options):
    """Random changes of the autoencoder's training images: a resized crop, then a shift, then a flip."""

    flip: bool = option(False, "mirror every other image left and right")
    crop_padding: int = option(0, "pixels of reflected border before a random crop to the same size; 0: off", low=0)
    resized_crop_min_scale: float = option(
        0.0, "smallest share of the area of a random crop that is resized to the same size; 0: off", low=0, high=1
    )


def augment(images: np.ndarray, augmentation: Augmentation, *, rows: np.ndarray, epoch: int, seed: int) -> np.ndarray:
    """Return randomly augmented images of one epoch.

    Args:
        images: [n, H, W, C] uint8.
        augmentation: which augmentations to apply.
        rows: int [n], indices of the images in their split.
        epoch: index of the epoch.
        seed: seed of the run.

    Returns:
        [n, H, W, C] uint8.
    """
    if augmentation == Augmentation():
        return images
    flip, down, right, area, ratio, top, left = _uniforms(rows, seed, epoch)
    count, height, width, _ = images.shape
    y = np.tile(np.arange(height) * 256, (count, 1))
    x = np.tile(np.arange(width) * 256, (count, 1))
    if augmentation.resized_crop_min_scale:
        area = augmentation.resized_crop_min_scale + (1 - augmentation.resized_crop_min_scale) * area
        # Wide and tall crops are equally likely, and none is larger than the image.
        ratio = np.minimum(_LARGEST_RATIO, 1 / area) ** (2 * ratio - 1)
        y, x = _crop(height, np.sqrt(area / ratio), top), _crop(width, np.sqrt(area * ratio), left)
    if augmentation.crop_padding:
        y, x = _shift(y, augmentation.crop_padding, down), _shift(x, augmentation.crop_padding, right)
    if augmentation.flip:
        x = np.where(flip[:, np.newaxis] < 0.5, x[:, ::-1], x)
    num_pieces = max(images.nbytes // _PIECE_BYTES, 1)
    pieces = zip(*(np.array_split(array, num_pieces) for array in (images, y, x)), strict=True)
    return np.concatenate([_sample(*piece) for piece in pieces])


def _crop(size: int, share: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Return positions [n, size] spread over a fraction `share` [n] of an axis; `place` [n] in [0, 1] locates it."""
    start = (place * (1 - share) * size)[:, np.newaxis]
    centres = start + (np.arange(size) + 0.5) * share[:, np.newaxis] - 0.5
    return np.rint(np.clip(centres, 0, size - 1) * 256).astype(int)


def _shift(positions: np.ndarray, padding: int, draws: np.ndarray) -> np.ndarray:
    """Shift positions [n, size] by -padding to padding pixels, reflecting at both ends as often as necessary."""
    _, size = positions.shape
    steps = np.floor(draws * (2 * padding + 1)).astype(int) - padding
    moved = np.arange(size) + steps[:, np.newaxis]
    period = max(2 * (size - 1), 1)
    return np.take_along_axis(positions, np.minimum(moved % period, -moved % period), axis=1)


def _sample(images: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Sample images at y [n, H] and x [n, W] by linear interpolation. They never shrink, so nothing aliases."""
    _, height, width, channels = images.shape
    rows = _rows(images, y >> 8)
    if (y & 255).any():
        rows = _blend(rows, _rows(images, np.minimum((y >> 8) + 1, height - 1)), (y & 255)[:, :, np.newaxis])
    columns = _columns(rows, x >> 8)
    if (x & 255).any():
        weight = np.repeat(x & 255, channels, axis=1)[:, np.newaxis]
        columns = _blend(columns, _columns(rows, np.minimum((x >> 8) + 1, width - 1)), weight)
    return columns


def _rows(images: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Return the given `rows`, int [n, H], of each image."""
    count, height, width, channels = images.shape
    # Gather a row (below, a pixel) as a single element: gathering bytes takes four times as long.
    elements = np.ascontiguousarray(images).reshape(-1).view(f"V{width * channels}")
    return elements.take(np.arange(count)[:, np.newaxis] * height + rows).view(np.uint8).reshape(images.shape)


def _columns(images: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the given `columns`, int [n, W], of each image."""
    count, height, width, channels = images.shape
    elements = images.reshape(-1).view(f"V{channels}")
    first = np.arange(count * height).reshape(count, height, 1) * width
    return elements.take(first + columns[:, np.newaxis]).view(np.uint8).reshape(images.shape)


def _blend(near: np.ndarray, far: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Interpolate from `near` to `far`, uint8 [n, H, W, C], with `weight`, [n, H, 1] or [n, 1, WC], in 256ths."""
    count, height, _, _ = near.shape
    a, b = near.reshape(count, height, -1), far.reshape(count, height, -1)
    weight = weight.astype(np.uint16)  # 255 · 256 + 128 still fits
    return ((a * (256 - weight) + b * weight + 128) >> 8).astype(np.uint8).reshape(near.shape)


def _uniforms(rows: np.ndarray, seed: int, epoch: int) -> np.ndarray:
    """Draw from [0, 1), float64 [_NUM_DRAWS, n], depending only on seed, epoch and row in every release of NumPy.

    The generator is SplitMix64 (Steele, Lea and Flood, OOPSLA 2014), whose outputs can be computed in any order. Its
    initial state is taken from the raw bits of PCG64, which NumPy guarantees never to change.
    """
    start = np.random.PCG64((seed, epoch, _PURPOSE)).random_raw(1)
    number = rows.astype(np.uint64) * _NUM_DRAWS + np.arange(1, _NUM_DRAWS + 1, dtype=np.uint64)[:, np.newaxis]
    bits = start + number * np.uint64(0x9E3779B97F4A7C15)
    bits = (bits ^ (bits >> 30)) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> 27)) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> 31)) >> 11) * 2.0**-53
