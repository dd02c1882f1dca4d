"""Write the table and the plots of a study, from the cells that have results.

    python -m studies.tables stability

Writes `table.md` and `losses-*.png` to the study's folder; `curves.png` and `reconstructions.png` instead of the latter
if reconstructions are kept. --folder selects the folder of a trial, which has its own `results`.
"""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.files import whole_file, write_text
from studies import STUDIES, find_folder
from studies.cells import Cell
from studies.results import is_kept, read, read_curve, read_images
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


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def save_figure(figure: Figure, path: Path, **options: Any) -> None:
    """Write a figure as a PNG, with `options` of `Figure.savefig`; the same figure gives the same bytes."""
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", dpi=100, metadata={"Software": None}, **options)


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


def plot_compared(cells: list[Cell], results: Path, path: Path) -> None:
    """Plot the training loss and its reconstruction term, with one colour per latent.

    One column of panels per value of the first label, one line per cell.
    """
    columns = list(dict.fromkeys(next(iter(cell.labels.values())) for cell in cells))
    colors = {name: f"C{number}" for number, name in enumerate(dict.fromkeys(_name_line(cell) for cell in cells))}
    figure = Figure(figsize=(7 * len(columns), 8), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(2, len(columns), squeeze=False, sharex=True, sharey="row")
    for row, curve in zip(panels, ("loss", "reconstruction"), strict=True):
        row[0].set_ylabel({"loss": "training loss", "reconstruction": "reconstruction term"}[curve])
        for axes, column in zip(row, columns, strict=True):
            axes.set_title(f"{next(iter(cells[0].labels))} {column}", fontsize="medium")
            axes.grid(alpha=0.3)
            for cell in (cell for cell in cells if column == next(iter(cell.labels.values()))):
                steps, values = (read_curve(cell, results, name) for name in ("step", curve))
                axes.loglog(steps, values, linewidth=0.7, color=colors[_name_line(cell)], label=_name_line(cell))
    for axes in panels[0]:
        axes.legend(loc="lower left", fontsize="small")
    figure.supxlabel("step")
    save_figure(figure, path)


def _name_line(cell: Cell) -> str:
    return ", ".join(list(cell.labels.values())[1:])


def plot_reconstructions(cells: list[Cell], results: Path, path: Path) -> None:
    """Plot one row of test images over one row of reconstructions per cell, of the same images."""
    kept = [(", ".join(cell.labels.values()), images) for cell in cells if (images := read_images(cell, results))]
    rows = [("test images", kept[0][1][0]), *((name, reconstructions) for name, (_, reconstructions) in kept)]
    _, height, _, channels = rows[0][1].shape
    whole = np.concatenate([np.concatenate(list(images), axis=1) for _, images in rows])
    scale = 2 / 100  # inches per pixel of an image
    figure = Figure(figsize=(scale * whole.shape[1] + 2, scale * whole.shape[0]), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.imshow(whole if channels == 3 else whole[..., 0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([height * (number + 0.5) for number in range(len(rows))], [name for name, _ in rows])
    axes.tick_params(length=0)
    save_figure(figure, path, bbox_inches="tight")


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
    if any(read_images(cell, results) for cell in kept):
        plot_compared(kept, results, folder / "curves.png")
        plot_reconstructions(kept, results, folder / "reconstructions.png")
        return text
    by_length = defaultdict(list)
    for group in groups:
        by_length[read(group[0], results)["num_steps"]].append(group)
    for length, alike in by_length.items():
        plot(alike, results, folder / f"losses-{length}.png")
    return text


def main(arguments: list[str]) -> None:
    """Write and print the table of one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--folder", type=Path, help="folder that contains `results` (default: the study's)")
    options = parser.parse_args(arguments)
    print(write(STUDIES[options.study](), options.folder or find_folder(options.study)), end="")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
