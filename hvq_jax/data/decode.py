"""Decoding image files of any kind to grey or colour, with Pillow."""

from typing import Any, BinaryIO

import numpy as np
from PIL import Image, ImageOps

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels


def decode_image(file: Any | BinaryIO, channels: int) -> Image.Image:
    """The image in a file (path or binary stream), turned upright, with 1, 3 or 4 channels of 8 bits.

    Palettes and transparency are resolved; of 16 bits the upper 8 are kept, where Pillow alone would clip to white.
    Raises what Pillow raises for a file it cannot read.
    """
    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I"):
        upright = Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8))
    return upright.convert(_MODES[channels])
