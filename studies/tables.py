"""The table and the plots of a study's cells, from those that have results."""

import math
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hvq_jax.errors import UserError
from hvq_jax.files import whole_file, write_text
from studies.cells import Cell
from studies.markdown import markdown
from studies.results import is_kept, read, read_curve
from studies.run_metrics import FIRST, spikes

PLACE_HEAD = ("seeds", "device", "JAX")
_COLUMNS = {
    "num_spikes": "spikes",
    "peak": "largest loss / median of the 101 before",
    "loss_ratio": "worst / median loss",
    "gradient_norm_ratio": "worst / median gradient norm",
    "mse": "test MSE",
    "psnr": "PSNR, dB",
    "codes_used": "codes used",
    "perplexity": "perplexity",
    "share_outside": "outside the mask",
    "gain_mean": "gain, mean",
    "gain_std": "gain, spread",
    "radial_share": "radial share",
}


def group_cells(cells: list[Cell]) -> list[list[Cell]]:
    """Return cells grouped by their labels, in the order of the first of each group; a group differs by seed only."""
    groups = defaultdict(list)
    for cell in cells:
        groups[tuple(cell.labels.values())].append(cell)
    return list(groups.values())


def split_by_place(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """Return results in groups that are from the same device and version of JAX, in the order of the first of each."""
    places = defaultdict(list)
    for row in rows:
        places[row["devices"], row["jax"]].append(row)
    return list(places.values())


def table(groups: list[list[Cell]], results: Path) -> str:
    """Return a table with one row per group and device: the mean over seeds and, for several, half the range."""
    read_groups = [(group[0].labels, [read(cell, results) for cell in group]) for group in groups]
    rows = [(labels, found) for labels, group in read_groups for found in split_by_place(group)]
    columns = [key for key in _COLUMNS if any(row[key] is not None for _, found in rows for row in found)]
    lines = [
        [
            *labels.values(),
            str(len(found)),
            found[0]["devices"],
            found[0]["jax"],
            *(spread([row[key] for row in found]) for key in columns),
        ]
        for labels, found in rows
    ]
    return markdown([*groups[0][0].labels, *PLACE_HEAD, *(_COLUMNS[key] for key in columns)], lines)


def spread(values: list[Any]) -> str:
    """Return the mean of the values that are not None and, for several, half their range."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.mean(known):.3g}"
    return f"{mean} ± {(max(known) - min(known)) / 2:.2g}" if len(known) > 1 else mean


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as a PNG or SVG, with `options` of `Figure.savefig`; the same figure gives the same bytes."""
    kind = path.suffix.removeprefix(".")
    metadata = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}[kind]
    with mpl.rc_context({"svg.hashsalt": "hvq_jax", "svg.fonttype": "path"}), whole_file(path) as unfinished:
        figure.savefig(unfinished, format=kind, dpi=100, metadata=metadata, **options)


def plot(groups: list[list[Cell]], results: Path, path: Path) -> None:
    """Plot the loss of every step, with one panel per group and one line per seed; mark spikes."""
    columns = min(len(groups), 3)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(5 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, group in zip(panels, groups, strict=False):
        for cell in group:
            steps, losses = (read_curve(cell, results, name) for name in ("step", "loss"))
            found = spikes(losses)
            axes.semilogy(steps, losses, linewidth=0.6, label=f"seed {cell.seed}")
            axes.semilogy(steps[found], losses[found], "rx", markersize=4)
        axes.axvline(FIRST, color="grey", linewidth=0.5)
        axes.set_title(", ".join(f"{key} {value}" for key, value in group[0].labels.items()), fontsize="medium")
        axes.legend(loc="upper right")
    for axes in panels[len(groups) :]:
        axes.remove()
    figure.supxlabel("step (red crosses: spikes; steps before the grey line are not checked)")
    figure.supylabel("training loss")
    save_figure(figure, path)


def write(cells: list[Cell], folder: Path) -> str:
    """Write the table and the plots of those of `cells` that have results to `folder`; return the table.

    Raises:
        UserError: there are no results in `folder`.
    """
    results = folder / "results"
    kept = [cell for cell in cells if is_kept(cell, results)]
    if not kept:
        raise UserError(f"{results}: no results; train the cells with studies.train")
    groups = group_cells(kept)
    text = table(groups, results)
    write_text(folder / "table.md", text)
    by_length = defaultdict(list)
    for group in groups:
        by_length[read(group[0], results)["num_steps"]].append(group)
    for length, alike in by_length.items():
        plot(alike, results, folder / f"losses-{length}.png")
    return text
