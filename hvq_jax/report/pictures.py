"""Images as inlined PNGs: as they are, as coloured maps, and many on one sheet."""

import base64
import io
import math
from typing import Any

import matplotlib
import numpy as np
from PIL import Image

from hvq_jax.data.decode import as_image
from hvq_jax.report.markup import Element, element

MOST_PIXELS = 96  # a side of an image in the report; larger images are reduced


def png_file(pixels: np.ndarray) -> bytes:
    """Return an image `[H, W]` or `[H, W, C]` uint8 with C = 1 or 3 as a PNG file."""
    stream = io.BytesIO()
    as_image(pixels).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def png(pixels: np.ndarray) -> str:
    """Return an image as an address that holds it; see `png_file`."""
    return f"data:image/png;base64,{base64.b64encode(png_file(pixels)).decode()}"


def picture(pixels: np.ndarray, alt: str, **attributes: Any) -> Element:
    """Return an `img` of an image or a map, drawn pixel by pixel; one with long sides is reduced."""
    return element("img", src=png(reduced(pixels)), alt=alt, **attributes)


def reduced(pixels: np.ndarray) -> np.ndarray:
    """Return an image `[H, W]` or `[H, W, C]` uint8 with sides of at most `MOST_PIXELS`.

    >>> reduced(np.zeros((192, 96, 3), np.uint8)).shape
    (96, 48, 3)
    """
    height, width = pixels.shape[:2]
    if max(height, width) <= MOST_PIXELS:
        return pixels
    scale = MOST_PIXELS / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(as_image(pixels).resize(size, Image.Resampling.BOX))


def mapped(values: np.ndarray, colors: str, low: float, high: float) -> np.ndarray:
    """Return a map `[h, w, 3]` uint8 of `values` `[h, w]`, coloured from `low` to `high` by a matplotlib colour map."""
    scaled = (np.asarray(values, np.float64) - low) / max(high - low, 1e-12)
    return (matplotlib.colormaps[colors](np.clip(scaled, 0, 1))[..., :3] * 255).round().astype(np.uint8)


def scale(colors: str, low: str, high: str) -> Element:
    """Return a bar with the colours of `mapped` and the values at its ends, as texts."""
    stops = [matplotlib.colors.to_hex(matplotlib.colormaps[colors](step / 8)) for step in range(9)]
    bar = element("span", class_="bar", style=f"background:linear-gradient(90deg,{','.join(stops)})")
    return element("span", low, bar, high, class_="scale")


def sheet(images: np.ndarray) -> tuple[np.ndarray, int, int]:
    """Return N images `[N, H, W, C]` side by side `[rows·H, columns·W, C]`, and the numbers of columns and rows."""
    count, height, width, channels = images.shape
    columns = math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    tiles = np.zeros((rows * columns, height, width, channels), np.uint8)
    tiles[:count] = images
    joined = tiles.reshape(rows, columns, height, width, channels).swapaxes(1, 2)
    return joined.reshape(rows * height, columns * width, channels), columns, rows
