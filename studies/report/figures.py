"""The figures of the course report, from the results so far.

    python -m studies.report.figures figure-4                   # one, of the full size
    python -m studies.report.figures --dim=32 --epochs=1        # all, of the small size

Each figure has both presets. It is written beside the results of its size: to `studies/report` for the full size, to
`studies/report/small` for the small one.
"""

import argparse
import dataclasses
import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.evaluation.palette import curve_colors
from studies import find_folder
from studies.cells import Cell
from studies.comparison import common_place
from studies.report.cells import (
    FREQUENT,
    FULL,
    MASSES,
    NUM_CODES,
    PRESETS,
    REPORTED,
    SEEDS,
    cells,
    name_frequency,
    name_mass,
    name_size,
)
from studies.results import is_kept, read, read_curve, read_images, read_validation_curves
from studies.tables import save_figure

_INTERVALS = 60
_NAMES = ["vq", "projected", *(name_frequency(s) for s in REPORTED), "combined S=312"]
_COLORS = dict(zip(_NAMES, curve_colors([name.partition(" ")[0] for name in _NAMES]), strict=True))


class Results:
    """The cells of one size that have results."""

    def __init__(self, dim: int, num_epochs: int) -> None:
        self.folder = find_folder("report") / name_size(dim, num_epochs)
        self.results = self.folder / "results"
        self.all_cells = cells(dim, num_epochs)
        self.kept = [cell for cell in self.all_cells if is_kept(cell, self.results)]

    def find(self, preset: str, latent: str, seed: int = 0) -> Cell | None:
        """Return a cell, None if it has no result."""
        wanted = ({"preset": preset, "latent": latent}, seed)
        return next((cell for cell in self.kept if (cell.labels, cell.seed) == wanted), None)

    def seeds(self, preset: str, latent: str) -> list[dict[str, Any]]:
        """Return the results of all seeds."""
        labels = {"preset": preset, "latent": latent}
        return [read(cell, self.results) for cell in self.kept if cell.labels == labels]

    def curve(self, cell: Cell, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps and values of a training curve."""
        return read_curve(cell, self.results, "step"), read_curve(cell, self.results, name)

    def held_out(self, cell: Cell, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps and values of a curve on the validation split."""
        curves = read_validation_curves(cell, self.results)
        return (np.zeros(0), np.zeros(0)) if curves is None else (curves["step"], curves[name])


def draw_curves_of_projected(found: Results) -> Figure:
    """Return the report's figure 1: loss terms of `projected` on held-out images and in training."""
    figure, panels = make_panels(len(PRESETS), 4, width=4)
    for row, preset in zip(panels, PRESETS, strict=True):
        cell = found.find(preset, "projected")
        for axes, (title, curve) in zip(
            row,
            {
                "held out: quantization": lambda c: found.held_out(c, "commitment"),
                "held out: reconstruction": lambda c: found.held_out(c, "mse"),
                "training: quantization": lambda c: found.curve(c, "codebook"),
                "training: reconstruction": lambda c: found.curve(c, "reconstruction"),
            }.items(),
            strict=True,
        ):
            axes.set_title(f"{preset}, {title}", fontsize="medium")
            if cell is not None:
                steps, values = curve(cell)
                axes.semilogy(steps, values, "o-" if title.startswith("held") else "-", linewidth=0.8, markersize=3)
            else:
                _say_missing(axes)
    figure.supxlabel("step")
    return figure


def draw_reconstructions_of_projected(found: Results) -> Figure:
    """Return the report's figure 2: test images and their reconstructions by `projected`."""
    return _draw_images(found, ("projected",))


def draw_reconstructions_of_frequency(found: Results) -> Figure:
    """Return the report's figure 3: test images and their reconstructions by `frequency` for several S."""
    return _draw_images(found, tuple(name_frequency(s) for s in (NUM_CODES, *REPORTED)))


def draw_losses_of_frequency(found: Results) -> Figure:
    """Return the report's figure 4: the reconstruction loss of `frequency` for four S."""
    return _draw_losses(found, [name_frequency(s) for s in (NUM_CODES, *REPORTED)])


def draw_losses_of_all(found: Results) -> Figure:
    """Return the report's figure 5: the reconstruction loss of all latents, `combined` included."""
    return _draw_losses(found, _NAMES)


def draw_errors_over_frequent(found: Results) -> Figure:
    """Return the continuous graph that the report asks for: the test error over S, and over what S masks."""
    figure, panels = make_panels(len(PRESETS), 2, width=6.5)
    color_of_count, color_of_mass = curve_colors(["frequency"] * 2)
    for (left, right), preset in zip(panels, PRESETS, strict=True):
        for axes, title in ((left, "S, number of frequent codes"), (right, "share of positions that are not frequent")):
            axes.set_xlabel(title)
            axes.set_title(preset, fontsize="medium")
            axes.set_ylabel("test MSE")
        by_count = {s: seeds for s in (*FREQUENT, NUM_CODES) if (seeds := found.seeds(preset, name_frequency(s)))}
        by_mass = {mass: seeds for mass in MASSES if (seeds := found.seeds(preset, name_mass(mass)))}
        of_count, of_mass = list(by_count.values()), list(by_mass.values())
        _draw_errors(left, list(by_count), of_count, fmt="o", linestyle="-", color=color_of_count)
        _draw_errors(right, _shares_outside(of_count), of_count, fmt="o", color=color_of_count, label="S given")
        _draw_errors(right, _shares_outside(of_mass), of_mass, fmt="s", color=color_of_mass, label="mass given")
        right.legend()
        if not (by_count or by_mass):
            _say_missing(left)
            _say_missing(right)
    return figure


@dataclasses.dataclass(frozen=True)
class Shown:
    """A figure: what it shows, how it is drawn, and the latents whose trainings it needs."""

    title: str
    draw: Callable[[Results], Figure]
    latents: tuple[str, ...]
    seeds: tuple[int, ...] = SEEDS[:1]
    kind: str = "svg"  # of its file; "png" where it has images

    def needed(self, found: Results) -> list[Cell]:
        """Return the cells of a size that the figure needs."""
        return [c for c in found.all_cells if c.labels["latent"] in self.latents and c.seed in self.seeds]


_REPORTED = tuple(name_frequency(s) for s in (NUM_CODES, *REPORTED))
_VARIED = tuple([*(name_frequency(s) for s in (*FREQUENT, NUM_CODES)), *map(name_mass, MASSES)])
FIGURES = {
    "figure-1": Shown("loss terms of `projected`", draw_curves_of_projected, ("projected",)),
    "figure-2": Shown("reconstructions of `projected`", draw_reconstructions_of_projected, ("projected",), kind="png"),
    "figure-3": Shown("reconstructions of `frequency`", draw_reconstructions_of_frequency, _REPORTED, kind="png"),
    "figure-4": Shown("losses of `frequency` for four S", draw_losses_of_frequency, _REPORTED),
    "figure-4-continuous": Shown("errors of `frequency` over S", draw_errors_over_frequent, _VARIED, SEEDS),
    "figure-5": Shown("losses of all latents", draw_losses_of_all, tuple(_NAMES)),
}


def make_panels(rows: int, columns: int, width: float) -> tuple[Figure, np.ndarray]:
    """Return a figure with a grid of panels, `[rows, columns]`, each `width` inches wide."""
    figure = Figure(figsize=(width * columns, 3.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.ravel():
        axes.grid(alpha=0.3)
    return figure, panels


def average(steps: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of a curve over up to 60 intervals of equal length, so that lines can be told apart."""
    parts = min(_INTERVALS, len(steps))
    first, second = (np.array([part.mean() for part in np.array_split(curve, parts)]) for curve in (steps, values))
    return first, second


def _say_missing(axes: Axes) -> None:
    axes.text(0.5, 0.5, "not trained yet", ha="center", va="center", transform=axes.transAxes)


def _shares_outside(trained: list[list[dict[str, Any]]]) -> list[float]:
    """Return the mean share of positions that are not frequent, over the seeds of each training."""
    return [statistics.mean(row["share_outside"] for row in seeds) for seeds in trained]


def _draw_errors(axes: Axes, places: list[float], trained: list[list[dict[str, Any]]], **style: Any) -> None:
    """Draw the test errors of trainings, with one or more seeds each: the mean, and a bar from least to most."""
    errors = [[row["mse"] for row in seeds] for seeds in trained]
    mean = np.array([statistics.mean(each) for each in errors])
    bars = np.array([mean - [min(each) for each in errors], [max(each) for each in errors] - mean])
    axes.errorbar(places, mean, bars if errors else None, capsize=3, markersize=4, **style)


def _draw_losses(found: Results, latents: list[str]) -> Figure:
    figure, panels = make_panels(len(PRESETS), 2, width=6.5)
    for row, preset in zip(panels, PRESETS, strict=True):
        for axes, split in zip(row, ("training", "held out"), strict=True):
            axes.set_title(f"{preset}, {split}", fontsize="medium")
            axes.set_ylabel("reconstruction loss")
            cells_found = [cell for name in latents if (cell := found.find(preset, name))]
            for cell in cells_found:
                name = cell.labels["latent"]
                steps, values = (
                    average(*found.curve(cell, "reconstruction"))
                    if split == "training"
                    else found.held_out(cell, "mse")
                )
                style = "-" if split == "training" else "o-"
                axes.loglog(steps, values, style, color=_COLORS[name], linewidth=0.8, markersize=3, label=name)
            if cells_found:
                axes.legend(loc="lower left", fontsize="small")
            else:
                _say_missing(axes)
    figure.supxlabel("step")
    return figure


def _draw_images(found: Results, latents: tuple[str, ...]) -> Figure:
    """Return one row of test images over one row of reconstructions per preset and latent, of the same images."""
    rows: list[tuple[str, np.ndarray]] = []
    for preset in PRESETS:
        for name in latents:
            images = read_images(cell, found.results) if (cell := found.find(preset, name)) else None
            if images is not None:
                rows += [] if rows else [("test images", images[0])]
                rows.append((f"{preset}, {name}", images[1]))
    if not rows:
        raise UserError(f"{found.results} has no reconstructions: train the cells with studies.report")
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
    return figure


def draw(found: Results, names: list[str]) -> list[Path]:
    """Write the figures of these names, and return their paths.

    Raises:
        UserError: there are no results, or a figure would mix those of several devices or versions of JAX.
    """
    if not found.kept:
        raise UserError(f"{found.results}: no results; train the cells with studies.report")
    paths = []
    for name in names:
        there = [cell.name for cell in found.kept]
        common_place(read(c, found.results) for c in FIGURES[name].needed(found) if c.name in there)
        paths.append(found.folder / f"{name}.{FIGURES[name].kind}")
        save_figure(FIGURES[name].draw(found), paths[-1])
    return paths


def main(arguments: list[str]) -> None:
    """Draw figures of one size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", nargs="*", metavar="figure", help=f"{', '.join(FIGURES)} (default: all)")
    parser.add_argument("--dim", type=int, default=FULL[0], help=f"D (default: {FULL[0]})")
    parser.add_argument("--epochs", type=int, default=FULL[1], help=f"default: {FULL[1]}")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.figures if name not in FIGURES]:
        parser.error(f"no figure {unknown[0]}: choose from {', '.join(FIGURES)}")
    for path in draw(Results(options.dim, options.epochs), options.figures or list(FIGURES)):
        print(path)


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
