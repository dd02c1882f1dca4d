"""Plots of `benchmarks.growth`: curves on logarithmic axes, with a straight line for comparison."""

import statistics
from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from benchmarks.workloads.axes import Axis
from hvq_jax.files import whole_file

_SIZE = (8.6, 3.6)  # inches; 860 pixels wide, shown at full size
_PIXELS_PER_INCH = 100
_DASHES = {1: "--", 2: ":"}  # by slope


def save_axis(path: Path, axis: Axis, seconds: dict[str, list[list[float]]], mib: dict[str, list[float]]) -> None:
    """Plot time and memory of every work along an axis; `seconds` holds the repetitions by work and point."""
    figure = Figure(_SIZE, dpi=_PIXELS_PER_INCH, layout="constrained")
    time, memory = figure.subplots(1, 2)
    sizes = [axis.size(value) for value in axis.values]
    for work, points in seconds.items():
        medians = [1e3 * statistics.median(repetitions) for repetitions in points]
        (line,) = time.plot(sizes, medians, marker="o", markersize=4, label=work)
        low, high = ([1e3 * end(repetitions) for repetitions in points] for end in (min, max))
        time.fill_between(sizes, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        _compare(time, sizes, medians[-1], axis.works[work])
        memory.plot(sizes, mib[work], marker="o", markersize=4, label=work)
        _compare(memory, sizes, mib[work][-1], 1)
    _dress(time, axis, "time of a call, ms (median and range)")
    _dress(memory, axis, "memory of the program, MiB")
    _save(figure, path)


def save_shares(
    path: Path, panels: Sequence[tuple[Axis, list[float]]], marks: Sequence[float | None], limit: float
) -> None:
    """Plot the search's share of the step along every axis, with the limit and where it is crossed."""
    figure = Figure(_SIZE, dpi=_PIXELS_PER_INCH, layout="constrained")
    for axes, (axis, shares), mark in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels, marks, strict=True
    ):
        axes.plot(axis.values, [100 * share for share in shares], marker="o", markersize=4, label="search / step")
        axes.axhline(100 * limit, color="0.5", linestyle="--", linewidth=1, label=f"{limit:.0%}")
        if mark is not None:
            axes.plot([mark], [100 * limit], marker="x", color="C3", linestyle="", label=f"{axis.label} = {mark:,.0f}")
        _dress(axes, axis, "codebook search, % of the training step")
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    with whole_file(path) as unfinished:
        figure.savefig(unfinished, format="png", facecolor="white")


def _compare(axes: Axes, sizes: list[int], last: float, slope: int) -> None:
    """Draw a straight line of the given slope that ends at the last point."""
    known = {line.get_label() for line in axes.lines}
    label = f"slope {slope}"
    start = last * (sizes[0] / sizes[-1]) ** slope
    (line,) = axes.plot([sizes[0], sizes[-1]], [start, last], _DASHES[slope], color="0.4", linewidth=1, zorder=1)
    line.set_label("_" if label in known else label)  # list each slope once in the legend


def _dress(axes: Axes, axis: Axis, unit: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xticks([axis.size(value) for value in axis.values], [axis.name(value) for value in axis.values])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda number, _: f"{number:,g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(axis.label, fontsize=10)
    axes.set_ylabel(unit, fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(color="0.9", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=9, frameon=False)
