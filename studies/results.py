"""Results that a study keeps of a run: metrics, training curves, and reconstructions."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NotRequired, TypedDict

import numpy as np

from hvq_jax.errors import UserError
from hvq_jax.files import read_arrays, read_json, read_names, whole_file, write_json
from hvq_jax.latents import PROJECTION, find_latent
from hvq_jax.layout import METRICS
from hvq_jax.runs.summary import read_summary
from hvq_jax.schema import Array
from hvq_jax.training.logging import read_records
from studies.cells import Cell
from studies.run_metrics import Stability, radial_share, stability

CURVES = ("loss", "gradient_norm", "reconstruction", "codebook", "projection", "gain", "perplexity")
VALIDATION_CURVES = ("mse", "commitment")  # of the validation split, from time to time
IMAGES = ("originals", "reconstructions")
_SPLITS = ("train", "validation")
_METRICS = ("mse", "psnr", "codes_used", "perplexity", "share_outside", "gain_mean", "gain_std")
_OF_LOSSES = ("num_spikes", "first_spike", "peak", "loss_ratio")

_CURVE_ARRAYS = {
    "step": Array("integers", ("N",), low=0, required=False),  # earlier ones have none: every step was kept
    **{name: Array("floats", ("N",), may_be_infinite=True) for name in CURVES},
}
_VALIDATION_ARRAYS = {
    "validation_step": Array("integers", ("M",), low=0),
    **{f"validation_{name}": Array("floats", ("M",), may_be_infinite=True) for name in VALIDATION_CURVES},
}
IMAGE_ARRAYS = {name: Array("integers", ("images", "H", "W", "C"), low=0, high=255) for name in IMAGES}


class Result(TypedDict):
    """The content of NAME.json: the metrics of a cell, None where there are none; besides, its labels."""

    seed: int
    devices: str
    jax: str
    mse: float | None
    psnr: float | None
    codes_used: float | None
    perplexity: float | None
    share_outside: float | None
    gain_mean: float | None
    gain_std: float | None
    radial_share: float | None
    num_steps: NotRequired[int | None]
    num_spikes: NotRequired[int | None]
    first_spike: NotRequired[int | None]
    peak: NotRequired[float | None]
    loss_ratio: NotRequired[float | None]
    gradient_norm_ratio: NotRequired[float | None]


def is_finished(cell: Cell, runs: Path) -> bool:
    """Return whether a run has completed its last stage; one stopped by SIGTERM has not, although its status is 0."""
    summary = read_summary(cell.workdir(runs))
    return "test" in summary.get("autoencoder", {}) and (cell.stage == "autoencoder" or "samples" in summary)


def collect(
    cell: Cell, runs: Path, results: Path, place: Mapping[str, str], images: dict[str, np.ndarray] | None = None
) -> None:
    """Keep the results of a run, even a diverged one, as NAME.json and NAME.npz in the folder `results`.

    Args:
        cell: the run.
        runs: the folder of the runs.
        results: the folder to write to.
        place: `devices` and `jax` of the run.
        images: `originals` and `reconstructions`, `[N, H, W, C]` uint8 each.
    """
    of_stage = [record for record in read_records(cell.workdir(runs)) if record["stage"] == "autoencoder"]
    records, evaluations = ([record for record in of_stage if record["split"] == name] for name in _SPLITS)
    _check_curves(cell, runs, records, CURVES)
    _check_curves(cell, runs, evaluations, VALIDATION_CURVES)
    curves = {key: np.array([record[key] for record in records], np.float32) for key in CURVES}
    steps = np.array([record["step"] for record in records], np.int32)
    kept = thinned(len(steps), cell.num_points)
    arrays = {"step": steps[kept], **{key: curve[kept] for key, curve in curves.items()}, **(images or {})}
    arrays["validation_step"] = np.array([record["step"] for record in evaluations], np.int32)
    for key in VALIDATION_CURVES:
        arrays[f"validation_{key}"] = np.array([record[key] for record in evaluations], np.float32)
    row = {
        **cell.labels,
        "seed": cell.seed,
        **_test_metrics(cell, runs),
        **_stability(steps, curves["loss"], curves["gradient_norm"]),
        **place,
        **_rate(records),
    }
    results.mkdir(parents=True, exist_ok=True)
    with whole_file(results / f"{cell.name}.npz") as path, path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    write_json(results / f"{cell.name}.json", row)


def _check_curves(cell: Cell, runs: Path, records: list[dict[str, Any]], curves: tuple[str, ...]) -> None:
    for record in records:
        if missing := [key for key in curves if key not in record]:
            path = cell.workdir(runs) / METRICS
            raise UserError(f"{path} has no {missing[0]} of step {record['step']}: delete the folder and train again")


def thinned(count: int, most: int) -> np.ndarray:
    """Return the indices of up to `most` of `count` points, evenly spaced from the first to the last; 0: all."""
    if not 0 < most < count:
        return np.arange(count)
    return np.linspace(0, count - 1, most).round().astype(int)


def is_kept(cell: Cell, results: Path) -> bool:
    """Return whether `collect` has kept the results of a cell."""
    return (results / f"{cell.name}.json").exists()


def read(cell: Cell, results: Path) -> dict[str, Any]:
    """Return the metrics of a kept cell; those that are not finite or do not exist are None."""
    row: dict[str, Any] = dict(read_json(results / f"{cell.name}.json", Result, advice=_advice(cell)) or {})
    if not Stability.__dataclass_fields__.keys() <= row.keys():  # an older result
        row |= _stability(*(read_curve(cell, results, name) for name in ("step", "loss", "gradient_norm")))
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def read_curve(cell: Cell, results: Path, name: str) -> np.ndarray:
    """Return one of CURVES, `[N]` float32, or "step", the training steps of the N points, from 1."""
    arrays = read_arrays(results / f"{cell.name}.npz", _CURVE_ARRAYS, advice=_advice(cell))
    if name not in arrays:
        return np.arange(1, len(arrays["loss"]) + 1)
    return arrays[name]


def read_validation_curves(cell: Cell, results: Path) -> dict[str, np.ndarray] | None:
    """Return "step" `[M]` int32 and VALIDATION_CURVES `[M]` float32 by name; None where none were kept."""
    path = results / f"{cell.name}.npz"
    if not _VALIDATION_ARRAYS.keys() & set(read_names(path, advice=_advice(cell))):
        return None
    arrays = read_arrays(path, _VALIDATION_ARRAYS, advice=_advice(cell))
    return {name.removeprefix("validation_"): array for name, array in arrays.items()}


def read_images(cell: Cell, results: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return originals and reconstructions, `[N, H, W, C]` uint8 each; None where none were kept."""
    path = results / f"{cell.name}.npz"
    if not set(IMAGES) & set(read_names(path, advice=_advice(cell))):
        return None
    arrays = read_arrays(path, IMAGE_ARRAYS, advice=_advice(cell))
    return arrays[IMAGES[0]], arrays[IMAGES[1]]


def _advice(cell: Cell) -> str:
    return f"delete {cell.name}.json and {cell.name}.npz, and run studies.train again"


def _stability(steps: np.ndarray, losses: np.ndarray, gradient_norms: np.ndarray) -> dict[str, float | None]:
    """Return the fields of `stability`; None for those that cannot be computed.

    Means over several steps hide spikes, and ratios of losses mean nothing if these are negative, as with the entropy
    term.
    """
    if not np.array_equal(steps, np.arange(1, len(steps) + 1)):
        return {**dict.fromkeys(Stability.__dataclass_fields__), "num_steps": int(steps[-1])}
    found = stability(losses, gradient_norms).as_dict()
    return found | dict.fromkeys(_OF_LOSSES) if (losses < 0).any() else found


def _rate(records: list[dict[str, Any]]) -> dict[str, float]:
    rates = [record["images_per_second"] for record in records if "images_per_second" in record]
    return {"images_per_second": float(np.median(rates))} if rates else {}


def _test_metrics(cell: Cell, runs: Path) -> dict[str, float | None]:
    summary = read_summary(cell.workdir(runs))
    if "autoencoder" not in summary:
        return dict.fromkeys((*_METRICS, "radial_share"))
    test = summary["autoencoder"]["test"]
    metrics = {key: test.get(key) for key in _METRICS}
    row = find_latent(cell.config.partition(":")[2])
    if row.masked or not row.uses(PROJECTION):  # elsewhere the terms are not of the same positions
        return {**metrics, "radial_share": None}
    to_projection = any(option == "loss.commitment_target=projection" for option in cell.options)
    return {**metrics, "radial_share": radial_share(test["projection"], test["commitment"], to_projection)}
