"""Images side by side in one picture, and which of them is at a point of it."""

import dataclasses
import math

import numpy as np

WHITE = 255


@dataclasses.dataclass(frozen=True, eq=False)
class Sheet:
    """Images `[N, H, W, C]` uint8 in rows, `gap` white pixels apart."""

    images: np.ndarray
    num_columns: int
    gap: int

    @property
    def num_rows(self) -> int:
        """The number of rows; the last one may not be full."""
        return math.ceil(len(self.images) / self.num_columns)

    @property
    def cell(self) -> tuple[int, int]:
        """The height and width of an image with the gap after it."""
        return self.images.shape[1] + self.gap, self.images.shape[2] + self.gap

    def picture(self) -> np.ndarray:
        """Return the sheet as one image `[height, width, C]` uint8."""
        height, width = self.cell
        canvas = np.full((self.num_rows * height, self.num_columns * width, self.images.shape[-1]), WHITE, np.uint8)
        for number, image in enumerate(self.images):
            row, column = divmod(number, self.num_columns)
            canvas[row * height :, column * width :][: height - self.gap, : width - self.gap] = image
        return canvas[: len(canvas) - self.gap, : canvas.shape[1] - self.gap]

    def number_at(self, x: float, y: float) -> int | None:
        """Return which image is at the point (x, y), in pixels from the upper left; None for outside.

        >>> sheet = Sheet(np.zeros((3, 4, 4, 1), np.uint8), num_columns=2, gap=1)
        >>> sheet.number_at(6.5, 1), sheet.number_at(1, 8), sheet.number_at(6.5, 8)
        (1, 2, None)
        """
        height, width = self.cell
        row, column = math.floor(y / height), math.floor(x / width)
        inside = 0 <= column < self.num_columns and row >= 0
        number = row * self.num_columns + column
        return number if inside and number < len(self.images) else None

    def corner(self, number: int) -> tuple[int, int]:
        """Return the upper left corner (x, y) of an image."""
        row, column = divmod(number, self.num_columns)
        return column * self.cell[1], row * self.cell[0]


def rgba(image: np.ndarray) -> np.ndarray:
    """Return `image` `[H, W, C]` uint8, grey or colour, as pixels `[H, W]` uint32 for Bokeh.

    >>> hex(rgba(np.array([[[1, 2, 3]]], np.uint8))[0, 0])
    '0xff030201'
    """
    height, width, channels = image.shape
    pixels = np.full((height, width, 4), 255, np.uint8)
    pixels[..., :3] = np.broadcast_to(image, (height, width, 3)) if channels == 1 else image
    return pixels.view("<u4")[..., 0]
