"""Decoding image files of any kind to square grey or colour pictures, with Pillow."""

import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # not all that Pillow knows: some of those start other programs

# 256 MB once decoded to RGBA; a file of a few kilobytes can announce far more.
MAX_PIXELS = 8192 * 8192


class ImageError(ValueError):
    """A file that is no image, or a damaged one. The message says what is wrong with it, but not which file it is."""


def decode_image(file: str | os.PathLike[str] | BinaryIO, channels: int, *, min_side: int = 0) -> Image.Image:
    """The image in a file (path or binary stream), turned upright, with 1, 3 or 4 channels of 8 bits.

    With 1 or 3 channels, what is transparent is laid on white: whatever colour a transparent pixel hides stays hidden.
    Palettes are resolved; of 16 bits the upper 8 are kept, where Pillow alone would clip to white.

    Args:
        file: PNG, JPEG, WebP, BMP or GIF, whatever its name says; of several frames the first.
        channels: 1 grey, 3 RGB, 4 RGB and opacity.
        min_side: the side that the image will be shrunk to. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its size,
            several times faster, with both sides still at least twice this. 0: always at its full size.

    Raises:
        ImageError: the file cannot be opened, is no image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width}×{image.height} pixels, more than the {MAX_PIXELS:,} that are read")
            if min_side:
                image.draft(None, (2 * min_side, 2 * min_side))
            ImageOps.exif_transpose(image, in_place=True)
            return _convert(image, channels)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("it is no PNG, JPEG, WebP, BMP or GIF image") from error
    except Exception as error:  # whatever the format's decoder trips over: Pillow has no common class
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def fit_image(image: Image.Image, size: int) -> Image.Image:
    """The centre of an image as `size`×`size` pixels: its shorter side resized to `size`, the longer one cropped.

    Bicubic, with the filter widened when shrinking, so that nothing aliases.
    """
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.BICUBIC, box=box)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    mode = _MODES[channels]
    if channels < 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L", "P"):
        image = image.convert(_MODES[max(channels, 3)])  # not every mode converts to grey directly
    return image.convert(mode)


def _upper_byte(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits as one of 8, with opacity if one of its values is declared transparent."""
    values = np.asarray(image)
    grey = np.clip(values >> 8, 0, 255).astype(np.uint8)
    if not image.has_transparency_data:
        return Image.fromarray(grey)
    opacity = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, opacity], axis=-1))
