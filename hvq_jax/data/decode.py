"""Decoding of image files to grey or colour images with Pillow, and fitting them to a size.

`read_image` is the one way from a file to the pixels that a network sees, in training and in use.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from hvq_jax.files import open_regular
from hvq_jax.registry import check_choice

MODES = {1: "L", 3: "RGB", 4: "RGBA"}  # Pillow's name for each number of channels
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")  # not all that Pillow supports: some start other programs

# 256 MB when decoded to RGBA; a file of a few kilobytes can declare far more.
MAX_PIXELS = 8192 * 8192

Sides = tuple[int, int]  # (height, width) in pixels

_TURNS = {  # by EXIF's orientation: how to turn the stored pixels upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class ImageError(ValueError):
    """Raised when a file is not an image or is damaged. The message says what is wrong, but does not name the file."""


def read_image(file: str | os.PathLike[str] | BinaryIO, sides: Sides, channels: int) -> tuple[np.ndarray, bool]:
    """Return the image in a file, resized to cover `sides`, (height, width), with its centre cropped.

    Args:
        file: path or binary stream, as for `decode_image`.
        sides: (height, width) in pixels.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.

    Returns:
        uint8 [height, width, channels], and whether the image had another size.

    Raises:
        ImageError: as `decode_image`.
    """
    image = decode_image(file, channels, at_least=sides)
    is_fitted = image.size != sides[::-1]
    return as_array(fit_image(image, sides)), is_fitted


def decode_image(
    file: str | os.PathLike[str] | BinaryIO, channels: int, *, at_least: Sides | None = None
) -> Image.Image:
    """Return the image in a file, upright, with 1, 3 or 4 channels of 8 bits.

    With 1 or 3 channels, transparent areas become white, so that colours hidden in transparent pixels stay hidden.
    Palettes are resolved. Of 16-bit values the upper 8 bits are kept, where plain Pillow would clip to white.

    Args:
        file: path or binary stream of a PNG, JPEG, WebP, BMP or GIF, whatever its name. Of several frames the first
            is used.
        channels: 1 for grey, 3 for RGB, 4 for RGBA.
        at_least: the (height, width) that the image will be shrunk to. A JPEG may then be decoded at 1/2, 1/4 or 1/8
            of its size, which is several times faster, as long as both sides are at least twice these. None: at full
            size.

    Raises:
        ArgumentError: `channels` is another number.
        ImageError: the file cannot be opened, is not an image, is damaged, or has more than `MAX_PIXELS` pixels.
    """
    check_choice("channels", channels, MODES)
    try:
        with _opened(file) as stream, Image.open(stream, formats=_FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise ImageError(f"{image.width}×{image.height} pixels, more than the limit of {MAX_PIXELS:,}")
            if at_least:
                side = 2 * max(at_least)  # of both sides, since the image may still be turned
                image.draft(None, (side, side))
            return _convert(_upright(image), channels)
    except (ImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise ImageError("not a PNG, JPEG, WebP, BMP or GIF image") from error
    except Exception as error:  # Pillow's decoders have no common error class
        raise ImageError(" ".join(str(error).split()) or type(error).__name__) from error


@contextlib.contextmanager
def _opened(file: str | os.PathLike[str] | BinaryIO) -> Iterator[BinaryIO]:
    if isinstance(file, str | os.PathLike):
        with open_regular(file) as stream:
            yield stream
    else:
        yield file


def _upright(image: Image.Image) -> Image.Image:
    """Return the image turned upright, as EXIF says; as stored where EXIF cannot be read."""
    image.load()  # first, so that an error is one of the pixels
    try:
        turn = _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # Pillow raises SyntaxError, struct.error, ValueError and others
        turn = None
    return image if turn is None else image.transpose(turn)


def as_sides(image_size: int | tuple[int, ...]) -> Sides | None:
    """Return (height, width) of `image_size`, a side or both; None for 0, images as stored.

    >>> as_sides(64), as_sides((48, 64)), as_sides(0)
    ((64, 64), (48, 64), None)
    """
    height, width = image_size if isinstance(image_size, tuple) else (image_size, image_size)
    return (height, width) if height > 0 and width > 0 else None


def fit_image(image: Image.Image, sides: Sides) -> Image.Image:
    """Return the image resized to cover `sides` pixels, (height, width), with its centre cropped.

    Bicubic, with a wider filter when shrinking, to prevent aliasing.
    """
    height, width = sides
    scale = min(image.height / height, image.width / width)  # pixels of the image per pixel of the result
    box_height, box_width = scale * height, scale * width
    left, top = (image.width - box_width) / 2, (image.height - box_height) / 2
    box = (left, top, left + box_width, top + box_height)
    return image.resize((width, height), Image.Resampling.BICUBIC, box=box)


def as_image(pixels: np.ndarray) -> Image.Image:
    """Return pixels `[H, W]` or `[H, W, C]` uint8, with C of 1, 3 or 4, as a Pillow image; `as_array` is its inverse.

    >>> as_array(as_image(np.zeros((2, 3, 1), np.uint8))).shape
    (2, 3, 1)
    """
    return Image.fromarray(pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels)


def as_array(image: Image.Image) -> np.ndarray:
    """Return the pixels of an image, uint8 [H, W, C]."""
    pixels = np.asarray(image)
    return pixels.reshape(*pixels.shape[:2], -1)


def _convert(image: Image.Image, channels: int) -> Image.Image:
    if image.mode.startswith("I"):
        image = _upper_byte(image)
    mode = MODES[channels]
    if channels < 4 and image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    elif image.mode not in ("1", "L", "P"):
        image = image.convert(MODES[max(channels, 3)])  # not every mode converts to grey directly
    return image.convert(mode)


def _upper_byte(image: Image.Image) -> Image.Image:
    """Convert a 16-bit grey image to 8 bits, with an alpha channel if one of its values is declared transparent."""
    values = np.asarray(image)
    grey = np.clip(values >> 8, 0, 255).astype(np.uint8)
    if not image.has_transparency_data:
        return Image.fromarray(grey)
    opacity = np.where(values == image.info["transparency"], 0, 255).astype(np.uint8)
    return Image.fromarray(np.stack([grey, opacity], axis=-1))
