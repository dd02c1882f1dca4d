"""The results of the frontier: their files, their form, and their reading."""

from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from hvq_jax.files import read_arrays, read_json
from hvq_jax.schema import Array
from studies import find_results
from studies.frontier.cells import Point, Training


class Quality(TypedDict):
    """The quality of images."""

    mse: float
    psnr: float
    ssim: float


class Bits(TypedDict):
    """Bits per image."""

    codes: float
    continuous: float


class Positions(TypedDict):
    """Mean bits of each position, rows of a grid."""

    codes: list[list[float]]
    continuous: list[list[float]]


class OtherOrder(TypedDict):
    """Bits per image of the continuous parts given all codes."""

    continuous: float


class PointResult(TypedDict):
    """The content of a point's JSON."""

    curve: str
    value: str
    training: str
    seed: int
    num_images: int
    as_trained: Quality
    fine_tuned: Quality
    prior_bits: Bits
    coded_bits: float
    static_bits: Bits
    bits_by_position: Positions
    codes_first_bits: NotRequired[OtherOrder]
    prior_parameters: int
    cpu_seconds: float
    devices: str
    jax: str
    commit: str


class TrainingResult(TypedDict):
    """The content of a training's JSON; quality is that of the latent before rounding."""

    size: str
    latent: str
    sizes: str
    seed: int
    num_images: int
    mse: float
    psnr: float
    ssim: float
    perplexity: float
    codes_used: float
    share_outside: float
    gain_mean: float
    gain_std: float
    length_mean: NotRequired[float]
    length_spread: NotRequired[float]
    spread_within_codes: NotRequired[float]
    radial_share: NotRequired[float]
    options: list[str]
    cpu_seconds: float
    devices: str
    jax: str
    commit: str


_ADVICE = "delete it and run studies.frontier again"
_EXAMPLES = {
    "originals": Array("integers", ("N", "H", "W", "C"), low=0, high=255),
    "decoded": Array("integers", ("N", "H", "W", "C"), low=0, high=255),
    "codes": Array("floats", ("N", "h", "w")),
    "continuous": Array("floats", ("N", "h", "w")),
}


def results_folder(size: str) -> Path:
    """Return the folder of the results of a size."""
    return find_results("frontier") / size


def find_training(training: Training, results: Path) -> Path:
    """Return the file with what is known of a training."""
    return results / f"{training.name}.json"


def find_point(training: Training, point: Point, results: Path, ending: str = ".json") -> Path:
    """Return the file with the result of a point."""
    return results / f"{training.name_point(point)}{ending}"


def missing_points(training: Training, results: Path) -> list[Point]:
    """Return the points of a training that have no result."""
    return [point for point in training.points if not find_point(training, point, results).exists()]


def is_made(training: Training, results: Path) -> bool:
    """Return whether a training and all of its points have results."""
    return find_training(training, results).exists() and not missing_points(training, results)


def read_point(training: Training, point: Point, results: Path) -> PointResult | None:
    """Return the result of a point, None if there is none yet; raise UserError if it is damaged."""
    return read_json(find_point(training, point, results), PointResult, advice=_ADVICE)


def read_training(training: Training, results: Path) -> TrainingResult | None:
    """Return what is known of a training, None if it is not made yet; raise UserError if it is damaged."""
    return read_json(find_training(training, results), TrainingResult, advice=_ADVICE)


def read_examples(training: Training, point: Point, results: Path) -> dict[str, np.ndarray] | None:
    """Return some images of a point with the bits of their positions, None if none were kept."""
    path = find_point(training, point, results, ".npz")
    found: dict[str, Any] | None = read_arrays(path, _EXAMPLES, advice=_ADVICE) if path.exists() else None
    return found
