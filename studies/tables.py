"""The table and the plots of a study, from the results that are there; cells without one are left out.

    python -m studies.tables stability

Writes `table.md` and `losses-*.png` into the study's folder.
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

from hvq_jax.errors import UserError, exit_status
from studies import STUDIES, folder_of, results_of
from studies.cells import Cell
from studies.figures import FIRST, spikes
from studies.results import is_kept, read, read_curve

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


def groups_of(cells: list[Cell]) -> list[list[Cell]]:
    """Cells that differ by their seed only, in the order of their first."""
    groups = defaultdict(list)
    for cell in cells:
        groups[tuple(cell.labels.values())].append(cell)
    return list(groups.values())


def table(groups: list[list[Cell]], results: Path) -> str:
    """A row a group: the mean over seeds and, where there are several, half the range."""
    rows = [[read(cell, results) for cell in group] for group in groups]
    columns = [key for key in _COLUMNS if any(row[key] is not None for group in rows for row in group)]
    lines = [
        [*group[0].labels.values(), str(len(group)), *(spread([row[key] for row in found]) for key in columns)]
        for group, found in zip(groups, rows, strict=True)
    ]
    return markdown([*groups[0][0].labels, "seeds", *(_COLUMNS[key] for key in columns)], lines)


def spread(values: list[Any]) -> str:
    """The mean of those that are known and, of several, half their range."""
    known = [value for value in values if value is not None]
    if not known:
        return ""
    mean = f"{statistics.mean(known):.3g}"
    return f"{mean} ± {(max(known) - min(known)) / 2:.2g}" if len(known) > 1 else mean


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """A table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def plot(groups: list[list[Cell]], results: Path, path: Path) -> None:
    """The loss of every step: a panel a group, a line a seed; spikes are marked."""
    columns = min(len(groups), 3)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(5 * columns, 2.6 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True).ravel()
    for axes, group in zip(panels, groups, strict=False):
        for cell in group:
            losses = read_curve(cell, results, "loss")
            found = spikes(losses)
            axes.semilogy(np.arange(1, len(losses) + 1), losses, linewidth=0.6, label=f"seed {cell.seed}")
            axes.semilogy(found + 1, losses[found], "rx", markersize=4)
        axes.axvline(FIRST, color="grey", linewidth=0.5)
        axes.set_title(", ".join(f"{key} {value}" for key, value in group[0].labels.items()), fontsize="medium")
        axes.legend(loc="upper right")
    for axes in panels[len(groups) :]:
        axes.remove()
    figure.supxlabel("step (spikes are red crosses; those before the grey line are not judged)")
    figure.supylabel("training loss")
    figure.savefig(path, dpi=100)


def main(arguments: list[str]) -> None:
    """Writes both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    study = parser.parse_args(arguments).study
    results = results_of(study)
    groups = groups_of([cell for cell in STUDIES[study]() if is_kept(cell, results)])
    if not groups:
        raise UserError(f"{results}: no result there; train the cells with studies.train")
    (folder_of(study) / "table.md").write_text(table(groups, results))
    by_length = defaultdict(list)
    for group in groups:
        by_length[read(group[0], results)["num_steps"]].append(group)
    for length, alike in by_length.items():
        plot(alike, results, folder_of(study) / f"losses-{length}.png")
    print(table(groups, results), end="")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
