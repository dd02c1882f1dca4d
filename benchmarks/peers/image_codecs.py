"""Image codecs through Pillow: lossy, without metadata, grey images in one channel where the format has that."""

import dataclasses
import importlib
import io
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, features

from hvq_jax.data.decode import as_image

# What Pillow raises for an image beyond a format's limits, or its own.
CODEC_ERRORS = (OSError, ValueError, RuntimeError, Image.DecompressionBombError)

_MODES = {1: "L", 3: "RGB"}


@dataclasses.dataclass(frozen=True)
class ImageCodec:
    """A format and the options of Pillow that it is written with."""

    format: str  # its name in Pillow
    vary: str  # the option that sets the quality
    values: tuple[Any, ...]  # of it, from the smallest file to the largest
    options: Mapping[str, Any]  # of every file
    single: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # and of files of one image
    mosaic: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # and of mosaics
    colour: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # and of either, of images with 3 channels
    feature: str = ""  # the name of its library among Pillow's features
    plugin: tuple[str, str] = ("", "")  # a module that adds the format to Pillow, and the package that has it

    def missing(self) -> str:
        """Return what is missing to write and read the format, and how to get it; "" if nothing is."""
        module, package = self.plugin
        if self.feature and not features.check(self.feature):
            return "this Pillow is built without it: pip install --force-reinstall pillow"
        if module:
            try:
                importlib.import_module(module)
            except ImportError:
                return f"{package} is not installed: pip install -r requirements-bench.txt"
        return ""

    def fixed(self, *, mosaic: bool, channels: int) -> dict[str, Any]:
        """Return the options that do not vary with the quality."""
        packing = self.mosaic if mosaic else self.single
        return {**self.options, **packing, **(self.colour if channels == 3 else {})}

    def encode(self, image: np.ndarray, value: Any, *, mosaic: bool) -> bytes:
        """Return the content of a file of `image` `[H, W, C]` uint8, with C of 1 or 3."""
        fixed = self.fixed(mosaic=mosaic, channels=image.shape[-1])
        file = io.BytesIO()
        as_image(image).save(file, self.format, **fixed, **{self.vary: value})
        return file.getvalue()


def decode(data: bytes, channels: int) -> np.ndarray:
    """Return the image `[H, W, channels]` uint8 of a file's content."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # a mosaic may be large, and it is ours
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(picture.convert(_MODES[channels])).reshape(picture.height, picture.width, channels)


# The slowest settings that pay, tuned to the squared error where the encoder can be.
IMAGE_CODECS = {
    "JPEG": ImageCodec(
        "JPEG",
        "quality",
        (2, 5, 10, 15, 20, 30, 50, 75),
        {"optimize": True},
        mosaic={"progressive": True},
        colour={"subsampling": "4:4:4"},
        feature="jpg",
    ),
    "WebP": ImageCodec("WEBP", "quality", (0, 2, 5, 10, 20, 40, 60, 80), {"method": 6}, feature="webp"),
    "JPEG 2000": ImageCodec(
        "JPEG2000",
        "quality_layers",
        ([17], [19], [21], [23], [25], [28], [32], [36]),
        # A comment of one byte, because OpenJPEG replaces an empty one by 33 bytes of its own.
        {"quality_mode": "dB", "irreversible": True, "no_jp2": True, "comment": "-"},
        single={"num_resolutions": 3},
        feature="jpg_2000",
    ),
    "JPEG XL": ImageCodec(
        "JXL",
        "quality",
        (5, 10, 20, 30, 40, 50, 65, 80),
        {"effort": 7, "num_threads": 0},  # 9 takes five times as long for 3 % fewer bits
        plugin=("pillow_jxl", "pillow-jxl-plugin"),
    ),
    "AVIF": ImageCodec(
        "AVIF",
        "quality",
        (1, 5, 10, 15, 20, 30, 40, 55),
        {"advanced": {"tune": "psnr"}, "autotiling": False},
        single={"speed": 6, "max_threads": 1},
        mosaic={"speed": 2},
        colour={"subsampling": "4:4:4"},
        feature="avif",
    ),
    "AVIF (Pillow's defaults)": ImageCodec(
        "AVIF", "quality", (10, 15, 20, 25, 30, 40, 50, 60), {}, single={"max_threads": 1}, feature="avif"
    ),
}
