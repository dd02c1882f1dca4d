"""Decoding of image files to grey or colour images with Pillow, and fitting them to a square."""

import os
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # by number of channels
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # not all that Pillow supports: some start other programs

# 256 MB when decoded to RGBA; a file of a few kilobytes can declare far more.
MAX_PIXELS = 8192 * 8192


class ImageError(ValueError):
    """Raised when a file is not an image or is damaged. The message says what is wrong, but does not name the file."""


def decode_image(file: str | os.PathLike[str] | BinaryIO, channels: int, *, min_side: int = 0) -> Image.Image:
    """Return the image in a file, upright, with 1, 3 or 4 channels of 8 bits.

    With 1 or 3 channels, transparent areas become white, so that colours hidden in transparent pixels stay hidden.
    Palettes are resolved. Of 16-bit values the upper 8 bits are kept, where plain Pillow would clip to white.

    Args:
        file: path or binary stream of a PNG, JPEG, WebP, BMP or GIF, whatever its name. Of several frames the first
            is used.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        min_side: the side to which the image will be shrunk. A JPEG may then be decoded at 1/2, 1/4 or 1/8 of its
            size, several times faster, with both sides still at least twice this number. 0 decodes at full size.

    Raises:
        ImageError: the file cannot be opened, is not an image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width}×{image.height} pixels, more than the limit of {MAX_PIXELS:,}")
            if min_side:
                image.draft(None, (2 * min_side, 2 * min_side))
            ImageOps.exif_transpose(image, in_place=True)
            return _convert(image, channels)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a PNG, JPEG, WebP, BMP or GIF image") from error
    except Exception as error:  # Pillow's decoders have no common error class
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


def fit_image(image: Image.Image, size: int) -> Image.Image:
    """Return the centre of an image as `size`×`size` pixels: resize its shorter side and crop the longer one.

    Resizing is bicubic, with a wider filter when shrinking to prevent aliasing.
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
    """Convert a 16-bit grey image to 8 bits, with an alpha channel if one of its values is declared transparent."""
    values = np.asarray(image)
    grey = np.clip(values >> 8, 0, 255).astype(np.uint8)
    if not image.has_transparency_data:
        return Image.fromarray(grey)
    opacity = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, opacity], axis=-1))
