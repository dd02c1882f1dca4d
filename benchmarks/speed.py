"""Speed and memory compared with plain PyTorch, and with Flax as a newcomer would write it.

    python -m benchmarks.speed                                  # or make bench, which installs PyTorch first
    python -m benchmarks.speed --rows=train28,sample7 --repetitions=20 --json=speed.json
    python -m benchmarks.speed --minutes=10 --json=speed.json   # as many rows as fit, from the first
    python -m benchmarks.speed --show=speed.json                # the table of stored results; measures nothing

Both subjects are separate processes that stay alive. They take turns, one repetition each; while one works, the other
is stopped. A repetition is a call, or as many calls as fill a second. The ratio is that of neighbouring repetitions:
median, smallest and largest.

Other work on the machine does not slow both sides equally: PyTorch's threads wait for each other. So the share of the
machine's CPU time that everything else takes is measured in each repetition, and a pair in which it is above 3 % is
discarded. A row that does not get enough undisturbed pairs in three times as many is not judged.

PyTorch runs with the fastest of a few settings, which are tried before each row: the memory format, Adam in one kernel,
torch.compile, OMP_WAIT_POLICY, and fewer threads. With --settings=FILE they are those of an earlier run's --json.

Peak memory is the largest resident set of the process. It is reported while stepping, that is after compilation, once
both sides have returned to the system what they no longer need, and for the whole process. Both values include the
interpreter and libraries; the second also includes what XLA or torch.compile need to compile.

Our subject is what `train.py` and `sample.py` run: the step under pmap with the config `reference`, a donated state and
the batch on the device as uint8. The PyTorch subject is in `benchmarks/peers`; its images are already float. Plain Flax
is timed once. Both JAX subjects get the XLA options of `hvq_jax.devices.xla`.

Before anything is timed, all subjects of a row must compute the same number from the same weights and batch: the loss
of a training step, the distance to the codes for `encode`, the mean square of the images for `decode`, and the prior's
loss in place of samples, which are random.
"""

import argparse
import dataclasses
import importlib.util
import statistics
import sys
import time
from collections.abc import Mapping
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
    stored,
    versions,
)
from benchmarks.measuring.comparison import Measurement, measure
from benchmarks.measuring.memory import forget_peak
from benchmarks.measuring.quiet import QUIET
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.workloads.rows import OURS, ROWS, TORCH
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
    "discarded",
    "peak while stepping: ours",
    "PyTorch",
    "ours / PyTorch",
    "peak of the process: ours",
    "PyTorch",
    "bar",
    "",
    "PyTorch's settings",
]


def pairwise_ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Return the median, smallest and largest ratio of neighbouring repetitions."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(ratios), min(ratios), max(ratios)


def verdict(ratio: float, bar: float) -> str:
    """Return whether the ratio meets the bar, in a word."""
    return "met" if ratio <= bar else "MISSED"


def duration(seconds: float | None) -> str:
    """Format a time, in ms if it is below ten seconds; nothing where there is none."""
    if seconds is None:
        return ""
    return f"{1e3 * seconds:,.0f} ms" if seconds < 10 else f"{seconds:,.1f} s"


def shown(ratio: float) -> str:
    """Format a ratio with at least two digits."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.3f}"


def record(name: str, measurement: Measurement, repetitions: int) -> dict[str, Any]:
    """Return a row of the JSON file: all repetitions, and what follows from the undisturbed ones."""
    row, quiet = ROWS[name], measurement.quiet_seconds()
    judged = len(quiet[OURS]) >= repetitions
    ratio = (
        dict(zip(("median", "min", "max"), pairwise_ratio(quiet[OURS], quiet[TORCH]), strict=True)) if judged else None
    )
    return {
        "row": name,
        "work": row.title,
        "bar": row.bar,
        "verdict": verdict(ratio["median"], row.bar) if ratio else "not judged: the machine was not quiet",
        "ratio": ratio,
        "median_seconds": {name: statistics.median(times) for name, times in quiet.items()} if judged else {},
        "discarded": measurement.discarded,
        **dataclasses.asdict(measurement),
    }


def cells(row: Mapping[str, Any]) -> list[str]:
    """Return a row of the table, from one of the JSON file."""
    ratio, times, stepping, whole = row["ratio"], row["median_seconds"], row["stepping_mib"], row["process_mib"]
    return [
        row["work"],
        *(duration(times.get(name)) for name in (OURS, TORCH)),
        duration(row["plain_seconds"]),
        f"{shown(ratio['median'])} ({shown(ratio['min'])}–{shown(ratio['max'])})" if ratio else "",
        f"{row['discarded']:.0%} of {len(row['others'])}",
        *(f"{stepping[name]:,.0f} MiB" for name in (OURS, TORCH)),
        shown(stepping[OURS] / stepping[TORCH]),
        *(f"{whole[name]:,.0f} MiB" for name in (OURS, TORCH)),
        f"≤ {row['bar']:.3g}",
        row["verdict"],
        str(TorchSettings(**row["torch"])),
    ]


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the options; raise UserError if they are invalid."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--rows", default=",".join(ROWS), help="default %(default)s")
    parser.add_argument("--repetitions", type=int, default=5, help="undisturbed ones per subject, default %(default)s")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing later, default %(default)s")
    parser.add_argument("--no-plain", action="store_true", help="leave plain Flax out, which takes a minute")
    parser.add_argument("--settings", metavar="FILE", help="a file of --json whose settings of PyTorch to use")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers to this file, after each row")
    parser.add_argument("--show", metavar="FILE", help="print the table of a file of --json, and measure nothing")
    options = parser.parse_args(arguments)
    options.rows = chosen("--rows", options.rows, "row", ROWS)
    check_at_least(options, repetitions=1, minutes=0.01)
    check_json(options.json)
    return options


def main(arguments: list[str]) -> None:
    """Measure and print a table."""
    options = parse(arguments)
    if options.show:
        print_header(HEADER)
        earlier = stored(options.show, "benchmarks.speed")
        for row in earlier["rows"]:
            print_line(cells(row))
        print(f"\n{earlier['conditions']}")
        return
    if importlib.util.find_spec("torch") is None:
        raise UserError("PyTorch is not installed: run make bench, or pip install -r requirements-bench.txt")
    deadline = time.monotonic() + 60 * options.minutes
    known = (
        {row["row"]: row["torch"] for row in stored(options.settings, "benchmarks.speed")["rows"]}
        if options.settings
        else {}
    )
    report: dict[str, Any] = {
        "versions": versions(PACKAGES),
        "conditions": conditions(PACKAGES, options.repetitions),
        "quiet": QUIET,
        "rows": [],
    }
    print_header(HEADER)
    for number, name in enumerate(options.rows):
        if time.monotonic() >= deadline:
            print(f"\nNot measured within --minutes={options.minutes:g}: {', '.join(options.rows[number:])}")
            break
        settings = TorchSettings(**known[name]) if name in known else None
        measurement = measure(
            name, options.repetitions, settings=settings, plain=not options.no_plain, deadline=deadline
        )
        report["rows"].append(record(name, measurement, options.repetitions))
        print_line(cells(report["rows"][-1]))
        if options.json:
            write_json(Path(options.json), report)
    print(f"\n{report['conditions']}")
    if not forget_peak():
        print("This system cannot reset peak memory: the peak while stepping is that of the whole process.")


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
