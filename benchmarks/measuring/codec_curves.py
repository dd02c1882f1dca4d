"""Curves of rate and distortion of codecs, and the file that they are stored in.

`docs/performance/codecs_fashion_mnist.json` is such a file. Its content is a `Report`:

    report = read_report(Path("docs/performance/codecs_fashion_mnist.json"))
    points = report["curves"]["AVIF, mosaics"]["points"]  # from the lowest rate to the highest
    line = [(point["bits_per_image"], point["mse"]) for point in points]

The keys of `curves` are "CODEC, mosaics" and "CODEC, single files" for each codec of
`benchmarks.peers.image_codecs.IMAGE_CODECS` (JPEG, WebP, JPEG 2000, JPEG XL, AVIF; and "AVIF (Pillow's defaults)"),
`KMEANS`, `PCA`, and "run NAME" for runs, which have one point. A codec that could not be measured has no curve.
"""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from benchmarks.peers.image_codecs import CODEC_ERRORS, ImageCodec, decode
from benchmarks.peers.patch_codes import SIDE, PatchCode
from benchmarks.peers.principal_components import ComponentCode, Components
from benchmarks.workloads.mosaics import make_mosaic, split_mosaic
from hvq_jax.errors import UserError
from hvq_jax.files import read_json
from hvq_jax.runs.programs import compare

KMEANS = "k-means of patches"
PCA = "PCA"
MOSAICS = "mosaics"
SINGLE_FILES = "single files"
NUM_CODES = (16, 64, 256, 512, 1024, 2048)
STEPS = (30, 45, 60, 80, 110, 150, 220, 320)  # of pixels in [0, 255]

_COMPARED = 500  # images at a time

Watch = Callable[[Iterable[Any]], Iterable[Any]]


class Point(TypedDict):
    """One setting of a codec."""

    setting: str
    images: int
    bits_per_image: float  # 8 × bytes / images, of what was decoded
    mse: float  # on [-1, 1]: four times that on [0, 1]
    psnr: float  # dB, mean over images
    ssim: float


class Curve(TypedDict):
    """The points of a codec, from the lowest rate to the highest."""

    settings: str  # what does not vary
    points: list[Point]


class Report(TypedDict):
    """The content of a file of results."""

    data: str
    image_shape: list[int]
    train_images: int
    test_images: int
    images_per_mosaic: int
    shuffled: bool  # the test images, before they were laid into mosaics
    versions: dict[str, str]
    device: str
    date: str
    curves: dict[str, Curve]


def read_report(path: Path) -> Report:
    """Return a file of results; raise UserError if it is missing or damaged."""
    report = read_json(path, Report, advice="measure again with benchmarks.codecs, or choose another file")
    if report is None:
        raise UserError(f"{path}: there is no such file; measure with python -m benchmarks.codecs --json={path}")
    return report


def measure(setting: str, images: np.ndarray, files: Sequence[bytes], decoded: np.ndarray) -> Point:
    """Return the point of `files` that `images` `[N, H, W, C]` uint8 became, and `decoded`, which they became again."""
    if decoded.shape != images.shape or decoded.dtype != images.dtype:
        raise ValueError(f"decoded: must be uint8 {images.shape}, not {decoded.dtype} {decoded.shape}")
    program = jax.jit(compare)
    starts = range(0, len(images), _COMPARED)
    parts = [program(images[i : i + _COMPARED], decoded[i : i + _COMPARED]) for i in starts]

    def mean(name: str) -> float:
        return float(np.concatenate([part[name] for part in parts]).mean(dtype=np.float64))

    return {
        "setting": setting,
        "images": len(images),
        "bits_per_image": 8 * sum(map(len, files)) / len(images),
        "mse": mean("mse"),
        "psnr": mean("psnr"),
        "ssim": mean("ssim"),
    }


def image_codec_curve(codec: ImageCodec, images: np.ndarray, per_file: int, watch: Watch = iter) -> Curve:
    """Return the curve of a codec of Pillow.

    Args:
        codec: the codec; its package must be installed.
        images: [N, H, W, C] uint8, with C of 1 or 3.
        per_file: images per file: 1, or more for mosaics.
        watch: a function that yields the settings that it is given, to show progress.
    """
    points = [_image_codec_point(codec, images, per_file, value) for value in watch(codec.values)]
    fixed = codec.fixed(mosaic=per_file > 1, channels=images.shape[-1])
    return {"settings": ", ".join(f"{name}={value}" for name, value in fixed.items()), "points": by_rate(points)}


def _image_codec_point(codec: ImageCodec, images: np.ndarray, per_file: int, value: Any) -> Point:
    height, width, channels = images.shape[1:]
    files, decoded = [], []
    for start in range(0, len(images), per_file):
        tiles = images[start : start + per_file]
        picture = make_mosaic(tiles)
        try:
            files.append(codec.encode(picture, value, mosaic=per_file > 1))
            decoded.append(split_mosaic(decode(files[-1], channels), len(tiles), height, width))
        except CODEC_ERRORS as error:
            size = f"{picture.shape[1]}×{picture.shape[0]}"
            raise UserError(f"{codec.format} cannot hold {size} pixels ({error}): choose fewer --per_mosaic") from None
    return measure(f"{codec.vary}={value}", images, files, np.concatenate(decoded))


def kmeans_curve(train: np.ndarray, images: np.ndarray, watch: Watch = iter) -> Curve:
    """Return the curve of k-means of patches, `train` `[M, H, W, C]` uint8 and `images` `[N, H, W, C]` uint8."""
    points = []
    for num_codes in watch(NUM_CODES):
        code = PatchCode.fit(train, num_codes)
        data = code.encode(images)
        points.append(measure(f"K={num_codes}", images, [data], code.decode(data, len(images))))
    return {"settings": f"{SIDE}×{SIDE} pixels, frequencies by position", "points": by_rate(points)}


def pca_curve(train: np.ndarray, images: np.ndarray, watch: Watch = iter) -> Curve:
    """Return the curve of PCA, arguments as in `kmeans_curve`."""
    components, points = Components.fit(train), []
    coefficients = components.coefficients(train)
    height, width, channels = train.shape[1:]
    for step in watch(STEPS):
        code = ComponentCode.fit(components, coefficients, (height, width, channels), step)
        data = code.encode(images)
        points.append(measure(f"step={step}", images, [data], code.decode(data, len(images))))
    return {"settings": "one step for all coefficients, frequencies by coefficient", "points": by_rate(points)}


def by_rate(points: list[Point]) -> list[Point]:
    """Return points from the lowest rate to the highest."""
    return sorted(points, key=lambda point: point["bits_per_image"])
