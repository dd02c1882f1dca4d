"""Growth of time and memory with batch, D, K, the image's side and the prior's positions, each varied alone.

    python -m benchmarks.growth                                           # 8 minutes on two quiet cores
    python -m benchmarks.growth --axes=dim,codes --json=growth.json --plots=docs/performance

The base is the config `default` with D = 64, K = 512, 28×28×1, batch 64, and a prior over 7×7 positions, batch 16. The
benchmark measures the training step of the autoencoder, the codebook search of its batch alone, the training step of
the PixelCNN, and drawing a batch of its samples. All works and points take turns, one repetition each. A repetition is
a call, or as many calls as fill half a second. It is made again if other processes disturbed it.

Memory is what XLA plans for the compiled program: arguments, outputs and temporaries, with donated ones counted once.
It is the same in every run and free of noise. It does not include scratch space of XLA's library kernels, libraries and
the interpreter.

An exponent describes the growth since the row above: 1 is proportional, relative to the area for images and grids. The
share of the search is the median, over repetitions, of its time divided by that of the step in the same repetition.
"""

import argparse
import dataclasses
import math
import os
import statistics
import sys
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.measuring.command import (
    Parser,
    check_at_least,
    check_json,
    chosen,
    conditions,
    print_header,
    print_line,
    versions,
)
from benchmarks.measuring.growth_plots import save_axis, save_shares
from benchmarks.measuring.quiet import SHORTEST, Quietly
from benchmarks.measuring.timing import calls_that_fill, measure_seconds
from benchmarks.workloads.axes import AXES, Axis
from benchmarks.workloads.programs import WORKS, Sizes
from hvq_jax.command import exit_status
from hvq_jax.devices import huge_pages
from hvq_jax.devices.xla import set_cpu_options
from hvq_jax.errors import UserError
from hvq_jax.files import write_json

PACKAGES = ("jax", "flax", "numpy")
PROGRAMS = {
    "step": "training step",
    "search": "codebook search",
    "prior step": "training step of the PixelCNN",
    "sampling": "16 samples of the PixelCNN",
}
LIMIT = 0.1  # a smaller share of the search counts as small


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Seconds of every repetition, and memory, of one work at one point."""

    seconds: list[float]
    mib: float

    @property
    def ms(self) -> float:
        """Median in milliseconds."""
        return 1e3 * statistics.median(self.seconds)


Measurements = dict[tuple[str, Sizes], Measurement]


def measure(axes: list[Axis], repetitions: int, quietly: Quietly) -> Measurements:
    """Measure every work at every point of the axes; the base, which is on several axes, is measured once."""
    keys = {(work, sizes): None for axis in axes for _, sizes in axis.points() for work in axis.works}
    programs = {(work, sizes): WORKS[work](sizes) for work, sizes in keys}
    calls = {}
    for key, program in programs.items():
        program.call()  # the first call also allocates
        calls[key] = calls_that_fill(SHORTEST, program.call)
    seconds: dict[tuple[str, Sizes], list[float]] = {key: [] for key in programs}
    for _ in range(repetitions):
        for key, program in programs.items():
            seconds[key].append(quietly(partial(measure_seconds, program.call, calls[key])))
    return {key: Measurement(seconds[key], program.mib) for key, program in programs.items()}


def exponents(sizes: list[float], numbers: list[float]) -> list[float | None]:
    """Return the exponent of the growth from each number to the next, relative to size; None for the first."""
    steps = zip(pairwise(sizes), pairwise(numbers), strict=True)
    return [None, *(math.log(b / a) / math.log(larger / smaller) for (smaller, larger), (a, b) in steps)]


def shares(step: Measurement, search: Measurement) -> list[float]:
    """Return the search's share of the step in every repetition."""
    return [part / whole for part, whole in zip(search.seconds, step.seconds, strict=True)]


def crossing(sizes: list[float], numbers: list[float], limit: float) -> float | None:
    """Return the size at which the numbers reach `limit`, coming from the end where they are below; None if never.

    Between two points it is interpolated along a straight line with both axes logarithmic.
    """
    points = list(zip(sizes, numbers, strict=True))
    if numbers[0] >= limit:
        points.reverse()
    if points[0][1] >= limit:
        return None
    for (size, below), (next_size, above) in pairwise(points):
        if above >= limit:
            way = math.log(limit / below) / math.log(above / below)
            return size * (next_size / size) ** way
    return None


def median_shares(axis: Axis, measurements: Measurements) -> list[float]:
    """Return the median share of the search at every point of an axis."""
    works = [(measurements["step", sizes], measurements["search", sizes]) for _, sizes in axis.points()]
    return [statistics.median(shares(*pair)) for pair in works]


def verdict(axis: Axis, median: list[float]) -> str:
    """Return a sentence that states where the search is small."""
    at = crossing([float(value) for value in axis.values], median, LIMIT)
    if at is None:
        end = f"{'less' if median[0] < LIMIT else 'more'} than {LIMIT:.0%} at every {axis.label}"
    else:
        end = f"less than {LIMIT:.0%} {'up to' if median[0] < LIMIT else 'from'} {axis.label} = {at:,.0f}"
    return f"The search's share of the step is {end}."


def columns(axis: Axis, work: str, measurements: Measurements) -> list[list[str]]:
    """Return the columns for a work in the table of an axis, each with its header first."""
    sizes = [float(axis.size(value)) for value in axis.values]
    found = [measurements[work, point] for _, point in axis.points()]
    times, memory = [m.ms for m in found], [m.mib for m in found]
    ranges = [f"{m.ms:,.1f} ({1e3 * min(m.seconds):,.1f}–{1e3 * max(m.seconds):,.1f})" for m in found]
    return [
        [f"{work} ms (min–max)", *ranges],
        ["exponent", *("" if e is None else f"{e:.2f}" for e in exponents(sizes, times))],
        [f"{work} MiB", *(f"{mib:,.1f}" for mib in memory)],
        ["exponent", *("" if e is None else f"{e:.2f}" for e in exponents(sizes, memory))],
    ]


def print_table(axis: Axis, measurements: Measurements) -> None:
    """Print the table of one axis, with the search's share if it is measured there."""
    table = [[axis.label, *map(axis.name, axis.values)]]
    for work in axis.works:
        table += columns(axis, work, measurements)
    small = median_shares(axis, measurements) if "search" in axis.works else []
    if small:
        table.append(["search / step", *(f"{share:.1%}" for share in small)])
    header, *rows = ([column[i] for column in table] for i in range(len(axis.values) + 1))
    print_header(header)
    for row in rows:
        print_line(row)
    print(f"\n{verdict(axis, small)}\n" if small else "", flush=True)


def record(name: str, axis: Axis, measurements: Measurements) -> list[dict[str, Any]]:
    """Return the entries of an axis in the JSON file, one per point and work."""
    return [
        {
            "axis": name,
            "value": value,
            "work": work,
            "sizes": dataclasses.asdict(sizes),
            "median_ms": measurements[work, sizes].ms,
            **dataclasses.asdict(measurements[work, sizes]),
        }
        for value, sizes in axis.points()
        for work in axis.works
    ]


SUMMARY = ["varied", "program", "time, ms", "exponent", "memory, MiB", "exponent"]


def summary(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Return the rows of one table for all axes, from those of the JSON file: both ends, and the exponent over all."""
    found = []
    for name, axis in AXES.items():
        for work in axis.works:
            of_work = [row for row in rows if (row["axis"], row["work"]) == (name, work)]
            if len(of_work) > 1:
                sizes = [float(axis.size(row["value"])) for row in of_work]
                ends = f"{axis.label}, {axis.name(of_work[0]['value'])} to {axis.name(of_work[-1]['value'])}"
                times, memory = ([row[kind] for row in of_work] for kind in ("median_ms", "mib"))
                found.append([ends, PROGRAMS[work], *_ends(sizes, times), *_ends(sizes, memory)])
    return found


def _ends(sizes: list[float], numbers: list[float]) -> list[str]:
    """Return the first and last number, and the exponent of the growth between them."""
    first, last = (f"{number:,.0f}" if number >= 10 else f"{number:.1f}" for number in (numbers[0], numbers[-1]))
    (_, exponent) = exponents([sizes[0], sizes[-1]], [numbers[0], numbers[-1]])
    return [f"{first} to {last}", f"{exponent:.2f}"]


def save_plots(folder: Path, names: list[str], measurements: Measurements) -> None:
    """Save one plot per axis, and one of the search's share."""
    for name in names:
        axis = AXES[name]
        lines = {work: [measurements[work, sizes] for _, sizes in axis.points()] for work in axis.works}
        seconds = {work: [m.seconds for m in found] for work, found in lines.items()}
        save_axis(folder / f"growth_{name}.png", axis, seconds, {k: [m.mib for m in v] for k, v in lines.items()})
    searched = [AXES[name] for name in names if "search" in AXES[name].works]
    if searched:
        panels = [(axis, median_shares(axis, measurements)) for axis in searched]
        marks = [crossing([float(value) for value in axis.values], median, LIMIT) for axis, median in panels]
        save_shares(folder / "growth_search.png", panels, marks, LIMIT)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--axes", default=",".join(AXES), help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="repetitions per point, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file")
    parser.add_argument("--plots", metavar="FOLDER", help="save growth_AXIS.png in this folder")
    options = parser.parse_args(arguments)
    options.axes = chosen("--axes", options.axes, "axis", AXES)
    check_at_least(options, repetitions=1)
    check_json(options.json)
    if options.plots is not None and not (Path(options.plots).is_dir() and os.access(options.plots, os.W_OK)):
        raise UserError(f"--plots={options.plots}: the folder does not exist or is not writable")
    return options


def main(arguments: list[str]) -> None:
    """Measure, print and plot."""
    options = parse(arguments)
    set_cpu_options()
    quietly = Quietly()
    measurements = measure([AXES[name] for name in options.axes], options.repetitions, quietly)
    measured_in = f"{conditions(PACKAGES, options.repetitions)}; {quietly}"
    for name in options.axes:
        print_table(AXES[name], measurements)
    print(measured_in)
    if options.json:
        records = [entry for name in options.axes for entry in record(name, AXES[name], measurements)]
        write_json(Path(options.json), {"versions": versions(PACKAGES), "conditions": measured_in, "rows": records})
    if options.plots:
        save_plots(Path(options.plots), options.axes, measurements)


if __name__ == "__main__":
    huge_pages.start_again()  # as the commands do
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
