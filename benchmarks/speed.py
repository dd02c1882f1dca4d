"""Speed and memory side by side with plain PyTorch, and with Flax as a newcomer would write it.

    python -m benchmarks.speed                                  # or make bench, which installs PyTorch first
    python -m benchmarks.speed --rows=train28,sample7 --repetitions=20 --json=speed.json

Every subject is a process of its own that stays alive; they take turns, a repetition each, so that whatever else the
machine does falls on all of them. A repetition is a call, or as many as fill half a second. The ratio is that of
neighbouring repetitions: median, smallest and largest.

Peak memory is the process's largest resident set: while it steps, that is after compilation, when everything that was
only needed until then has been given back to the system, by both sides in the same way; and of the whole process. Both
have interpreter and libraries in them, the second what XLA needs to compile too.

Ours is what `train.py` and `sample.py` run: the step under pmap with the config `reference` and its state donated, the
batch on the device as uint8. The PyTorch side is in `benchmarks/peers`, with as many threads as there are cores; its
images are float already. Both JAX subjects get the XLA options of `hvq_jax.devices.xla`.

Before anything is timed, all subjects of a row have to compute the same number from the same weights and batch: of a
training step its loss, of `encode` the distance to the codes, of `decode` the mean square of the images, and in place
of samples, which are random, the prior's loss.
"""

import argparse
import dataclasses
import importlib.util
import json
import statistics
import sys
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.command import (
    Parser,
    check_json,
    check_repetitions,
    chosen,
    conditions,
    print_header,
    print_line,
    versions,
)
from benchmarks.memory import forget_peak
from benchmarks.rows import OURS, PLAIN, ROWS, TORCH, Row
from benchmarks.turns import Measurement, measure
from hvq_jax.errors import UserError, exit_status

PACKAGES = ("jax", "flax", "torch", "numpy")
HEADER = [
    "work",
    "ours",
    "PyTorch",
    "plain Flax",
    "ours / PyTorch (min–max)",
    "peak while stepping: ours",
    "PyTorch",
    "ours / PyTorch",
    "peak of the process: ours",
    "PyTorch",
    "bar",
    "",
]


def pairwise_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median, smallest and largest of the ratios of neighbouring repetitions."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def verdict(ratio: float, bar: float) -> str:
    """Whether the ratio is good enough."""
    return "met" if ratio <= bar else "MISSED"


def duration(seconds: float) -> str:
    """In ms below ten seconds."""
    return f"{1e3 * seconds:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def shown(ratio: float) -> str:
    """With two digits at least."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def cells(row: Row, measurement: Measurement) -> list[str]:
    """A row of the table."""
    median, smallest, largest = pairwise_ratio(measurement.seconds[OURS], measurement.seconds[TORCH])
    times = {name: duration(statistics.median(seconds)) for name, seconds in measurement.seconds.items()}
    stepping, whole = measurement.stepping_mib, measurement.process_mib
    return [
        row.title,
        *(times.get(name, "") for name in (OURS, TORCH, PLAIN)),
        f"{shown(median)} ({shown(smallest)}–{shown(largest)})",
        *(f"{stepping[name]:,.0f} MiB" for name in (OURS, TORCH)),
        shown(stepping[OURS] / stepping[TORCH]),
        *(f"{whole[name]:,.0f} MiB" for name in (OURS, TORCH)),
        f"≤ {row.bar:.3g}",
        verdict(median, row.bar),
    ]


def record(name: str, row: Row, measurement: Measurement) -> dict[str, Any]:
    """A row of the JSON file."""
    median, smallest, largest = pairwise_ratio(measurement.seconds[OURS], measurement.seconds[TORCH])
    return {
        "row": name,
        "work": row.title,
        "bar": row.bar,
        "verdict": verdict(median, row.bar),
        "ratio": {"median": median, "min": smallest, "max": largest},
        **dataclasses.asdict(measurement),
    }


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options; UserError where they make no sense."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(ROWS), help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="of each subject, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="write all numbers there too")
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    check_repetitions(options.repetitions)
    check_json(options.json)
    return options


def run(arguments: list[str]) -> None:
    """Measures and prints."""
    options = parse(arguments)
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: make bench, or pip install -r requirements-bench.txt")
    records = []
    for number, name in enumerate(options.rows):
        measurement = measure(name, options.repetitions)
        if number == 0:
            print_header(HEADER)
        print_line(cells(ROWS[name], measurement))
        records.append(record(name, ROWS[name], measurement))
    print(f"\n{conditions(PACKAGES, options.repetitions)}")
    if not forget_peak():
        print("This system cannot reset the peak: that while stepping is that of the process, compilation and all.")
    if options.json:
        report = {"versions": versions(PACKAGES), "conditions": conditions(PACKAGES, options.repetitions)}
        Path(options.json).write_text(json.dumps({**report, "rows": records}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(exit_status(partial(run, sys.argv[1:])))
