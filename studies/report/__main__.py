"""Train the cells of the report's comparison that have no result yet, within a time limit, and pack the results.

    python -m studies.report --manual_dir=/usr/share/datasets/fashion-mnist --seconds=540 --pack=packed

Run it again to resume. --dim and --epochs run a smaller trial, with runs and results in separate folders:
`studies/report/trials/dim_D-epochs_N`.
"""

import argparse
import os
import sys
from pathlib import Path

from hvq_jax.command import exit_status
from studies import find_folder
from studies.report.cells import DIM, NUM_EPOCHS, cells
from studies.train import Limit, add_options, train_cells

MOST_JOBS = 4


def name_trial(dim: int, num_epochs: int) -> str:
    """Return the name of a trial's folder, "" for the full size."""
    return "" if (dim, num_epochs) == (DIM, NUM_EPOCHS) else f"trials/dim_{dim}-epochs_{num_epochs}"


def main(arguments: list[str]) -> None:
    """Train the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = len(os.sched_getaffinity(0))
    parser.add_argument("--dim", type=int, default=DIM, help=f"D (default: {DIM})")
    parser.add_argument("--epochs", type=int, default=NUM_EPOCHS, help=f"default: {NUM_EPOCHS}")
    parser.add_argument(
        "--manual_dir", default="/usr/share/datasets/fashion-mnist", help="the published files (default: Debian's)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/report"), help="default: runs/report")
    parser.add_argument(
        "--jobs",
        type=int,
        choices=range(1, MOST_JOBS + 1),
        default=min(MOST_JOBS, cores),
        help=f"runs at a time (default: {MOST_JOBS}, or the number of CPU cores if that is less)",
    )
    add_options(parser)
    options = parser.parse_args(arguments)
    limit, study, trial = Limit(options.seconds), find_folder("report"), name_trial(options.dim, options.epochs)
    train_cells(
        cells(options.dim, options.epochs), study, study / trial / "results", options.runs / trial, options, limit
    )


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
