"""Many images as one: a mosaic of tiles, edge to edge, so that a codec writes one header for all of them."""

import numpy as np

COLUMNS = 50  # 2,000 images fill 40 rows


def make_mosaic(images: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Return images `[n, H, W, C]` as one, row by row; what is left of the last row is 0.

    >>> make_mosaic(np.arange(3, dtype=np.uint8).reshape(3, 1, 1, 1), columns=2)[..., 0].tolist()
    [[0, 1], [2, 0]]
    """
    count, height, width, channels = images.shape
    columns = min(columns, count)
    rows = -(-count // columns)
    tiles = np.zeros((rows * columns, height, width, channels), images.dtype)
    tiles[:count] = images
    tiles = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return tiles.reshape(rows * height, columns * width, channels)


def split_mosaic(mosaic: np.ndarray, count: int, height: int, width: int) -> np.ndarray:
    """Return the first `count` images `[count, height, width, C]` of a mosaic; the inverse of `make_mosaic`."""
    rows, columns, channels = mosaic.shape[0] // height, mosaic.shape[1] // width, mosaic.shape[2]
    tiles = mosaic.reshape(rows, height, columns, width, channels).swapaxes(1, 2)
    return tiles.reshape(rows * columns, height, width, channels)[:count]
