"""The table and the plot of the study, from the runs that are there; cells that are not finished are left out.

    python -m studies.stability.report --runs=runs/stability

Writes `results.json`, `table.md` and `losses.png` into `studies/stability`.
"""

import argparse
import dataclasses
import json
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hvq_jax.errors import UserError, exit_status
from hvq_jax.training.logging import read_records
from studies.stability.cells import Cell, all_cells, long_cells
from studies.stability.figures import FIRST, radial_share, spikes, stability

_HERE = Path(__file__).parent
_COLUMNS = {
    "num_spikes": "spikes",
    "loss_ratio": "worst / median loss",
    "gradient_norm_ratio": "worst / median gradient norm",
    "mse": "test MSE",
    "psnr": "PSNR, dB",
    "codes_used": "codes used",
    "gain_mean": "gain, mean",
    "gain_std": "gain, spread",
    "radial_share": "radial share",
}


def curves(cell: Cell, runs: Path) -> tuple[np.ndarray, np.ndarray]:
    """Loss and gradient norm of every step so far, `[N]` each."""
    records = [record for record in read_records(cell.workdir(runs)) if record["split"] == "train"]
    return np.array([r["loss"] for r in records]), np.array([r["gradient_norm"] for r in records])


def result(cell: Cell, runs: Path) -> dict[str, Any] | None:
    """The figures of a cell, None unless it is finished."""
    summary = cell.workdir(runs) / "summary.json"
    if not summary.exists():
        return None
    test = json.loads(summary.read_text())["autoencoder"]["test"]
    share = radial_share(test["projection"], test["commitment"]) if cell.codebook != "spherical" else None
    return {
        **dataclasses.asdict(cell),
        **dataclasses.asdict(stability(*curves(cell, runs))),
        **{key: test[key] for key in ("mse", "psnr", "codes_used", "perplexity", "gain_mean", "gain_std")},
        "radial_share": share,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Mean over seeds and, where there are several, half the range."""
    groups = defaultdict(list)
    for row in results:
        groups[row["codebook"], row["gradient"], row["num_steps"]].append(row)
    lines = [["codebook", "gradient", "steps", "seeds", *_COLUMNS.values()]]
    lines.append(["---"] * len(lines[0]))
    for (codebook, gradient, steps), rows in sorted(groups.items()):
        cells = [_cell([row[key] for row in rows]) for key in _COLUMNS]
        lines.append([codebook, gradient, f"{steps:,}", str(len(rows)), *cells])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _cell(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.mean(known):.3g}"
    return f"{mean} ± {(max(known) - min(known)) / 2:.2g}" if len(known) > 1 else mean


def plot(cells: list[Cell], runs: Path, path: Path) -> None:
    """The loss of every step, a panel a cell; spikes are marked."""
    figure = Figure(figsize=(11, 2.2 * max(len(cells), 1)), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, cell in zip(figure.subplots(len(cells), squeeze=False)[:, 0], cells, strict=True):
        losses, _ = curves(cell, runs)
        found = spikes(losses)
        axes.semilogy(np.arange(1, len(losses) + 1), losses, linewidth=0.6, label="training loss")
        axes.semilogy(found + 1, losses[found], "r.", label=f"spikes ({len(found)})")
        axes.axvline(FIRST, color="grey", linewidth=0.5)
        axes.set(title=f"codebook {cell.codebook}, gradient {cell.gradient}, seed {cell.seed}", ylabel="loss")
        axes.legend(loc="upper right")
    figure.supxlabel("step")
    figure.savefig(path, dpi=100)


def main(arguments: list[str]) -> None:
    """Writes all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    options = parser.parse_args(arguments)
    results = [row for cell in all_cells() + long_cells() if (row := result(cell, options.runs))]
    if not results:
        raise UserError(f"--runs={options.runs}: no finished cell there; train them with studies.stability.train")
    (_HERE / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    (_HERE / "table.md").write_text(table(results))
    shown = [cell for cell in all_cells() if cell.seed == 0 and result(cell, options.runs)]
    plot(shown + [cell for cell in long_cells() if result(cell, options.runs)], options.runs, _HERE / "losses.png")
    print(table(results), end="")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
