"""Speed and memory compared with plain PyTorch, and with Flax as a newcomer would write it.

    python -m benchmarks.speed                                  # or make bench, which installs PyTorch first
    python -m benchmarks.speed --rows=train28,sample7 --repetitions=20 --json=speed.json

Every subject is a separate process that stays alive. Subjects take turns, one repetition each, so that other load on
the machine affects all of them. A repetition is a call, or as many calls as fill half a second. The ratio is that of
neighbouring repetitions: median, smallest and largest.

Peak memory is the largest resident set of the process. It is reported while stepping, that is after compilation, once
both sides have returned to the system what they no longer need, and for the whole process. Both values include the
interpreter and libraries; the second also includes what XLA needs to compile.

Our subject is what `train.py` and `sample.py` run: the step under pmap with the config `reference`, a donated state and
the batch on the device as uint8. The PyTorch subject is in `benchmarks/peers` and uses as many threads as there are
cores; its images are already float. Both JAX subjects get the XLA options of `hvq_jax.devices.xla`.

Before anything is timed, all subjects of a row must compute the same number from the same weights and batch: the loss
of a training step, the distance to the codes for `encode`, the mean square of the images for `decode`, and the prior's
loss in place of samples, which are random.
"""

import argparse
import dataclasses
import importlib.util
import statistics
import sys
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
from benchmarks.measuring.memory import forget_peak
from benchmarks.measuring.turns import Measurement, measure
from benchmarks.workloads.rows import OURS, PLAIN, ROWS, TORCH, Row
from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.files import write_json

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
    """Return the median, smallest and largest ratio of neighbouring repetitions."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def verdict(ratio: float, bar: float) -> str:
    """Return whether the ratio meets the bar, in a word."""
    return "met" if ratio <= bar else "MISSED"


def duration(seconds: float) -> str:
    """Format a time, in ms if it is below ten seconds."""
    return f"{1e3 * seconds:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def shown(ratio: float) -> str:
    """Format a ratio with at least two digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def cells(row: Row, measurement: Measurement) -> list[str]:
    """Return a row of the table."""
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
    """Return a row of the JSON file."""
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
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(ROWS), help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=7, help="repetitions per subject, default %(default)s")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file")
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    check_at_least(options, repetitions=1)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run make bench, or pip install -r requirements-bench.txt")
    records = []
    for number, name in enumerate(options.rows):
        measurement = measure(name, options.repetitions)
        if number == 0:
            print_header(HEADER)
        print_line(cells(ROWS[name], measurement))
        records.append(record(name, ROWS[name], measurement))
    print(f"\n{conditions(PACKAGES, options.repetitions)}")
    if not forget_peak():
        print("This system cannot reset peak memory: the peak while stepping is that of the whole process.")
    if options.json:
        report = {"versions": versions(PACKAGES), "conditions": conditions(PACKAGES, options.repetitions)}
        write_json(Path(options.json), {**report, "rows": records})


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
