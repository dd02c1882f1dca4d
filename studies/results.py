"""What a study keeps of a run: a row of figures, and a few of them of every step."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from hvq_jax.training.logging import read_records
from studies.cells import Cell
from studies.figures import radial_share, stability

CURVES = ("loss", "gradient_norm", "reconstruction", "codebook", "projection", "gain", "perplexity")
_FIGURES = ("mse", "psnr", "codes_used", "perplexity", "share_outside", "gain_mean", "gain_std")


def collect(cell: Cell, runs: Path, results: Path) -> None:
    """Keeps a finished run, also one whose loss became infinite, as NAME.json and NAME.npz in the folder `results`."""
    of_steps = {"split": "train", "stage": "autoencoder"}
    records = [record for record in read_records(cell.workdir(runs)) if of_steps.items() <= record.items()]
    curves = {key: np.array([record[key] for record in records], np.float32) for key in CURVES}
    row = {**cell.labels, "seed": cell.seed, **_test_figures(cell, runs)}
    results.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(results / f"{cell.name}.npz", **curves)  # type: ignore[arg-type]
    (results / f"{cell.name}.json").write_text(json.dumps(row, indent=1) + "\n")


def is_kept(cell: Cell, results: Path) -> bool:
    """Whether `collect` has been there."""
    return (results / f"{cell.name}.json").exists()


def read(cell: Cell, results: Path) -> dict[str, Any]:
    """The row of a kept cell; figures that are infinite or do not exist are None.

    Ratios of losses say nothing where these are negative, as with the entropy term.
    """
    kept = json.loads((results / f"{cell.name}.json").read_text())
    losses, norms = (read_curve(cell, results, name) for name in ("loss", "gradient_norm"))
    row = {**kept, **stability(losses, norms).as_dict()}
    if (losses < 0).any():
        row |= dict.fromkeys(("num_spikes", "first_spike", "peak", "loss_ratio"))
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def read_curve(cell: Cell, results: Path, name: str) -> np.ndarray:
    """One of CURVES, of every step: `[N]` float32."""
    with np.load(results / f"{cell.name}.npz") as arrays:
        return arrays[name]


def _test_figures(cell: Cell, runs: Path) -> dict[str, float | None]:
    summary = cell.workdir(runs) / "summary.json"
    if not summary.exists():
        return dict.fromkeys((*_FIGURES, "radial_share"))
    test = json.loads(summary.read_text())["autoencoder"]["test"]
    figures = {key: test.get(key) for key in _FIGURES}
    if not cell.config.endswith(":projected"):  # elsewhere the terms are not of the same positions
        return {**figures, "radial_share": None}
    to_projection = any(option == "loss.commitment_target=projection" for option in cell.options)
    return {**figures, "radial_share": radial_share(test["projection"], test["commitment"], to_projection)}
