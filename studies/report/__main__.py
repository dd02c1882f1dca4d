"""Train the cells of the report's comparison that have no result yet, within a time limit, and pack the results.

    python -m studies.report --manual_dir=/usr/share/datasets/fashion-mnist --seconds=540 --pack=packed

Run it again to resume. `--dim=32 --epochs=1` trains the small comparison, whose results are in `studies/report/small`;
other sizes are trials, in `studies/report/trials/dim_D-epochs_N`.
"""

import argparse
import sys
from pathlib import Path

from hvq_jax.command import exit_status
from hvq_jax.devices.cores import number_of_cores
from studies import find_folder
from studies.report.cells import FULL, cells, name_size
from studies.train import Limit, add_options, train_cells

MOST_JOBS = 4


def main(arguments: list[str]) -> None:
    """Train the cells."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cores = number_of_cores()
    parser.add_argument("--dim", type=int, default=FULL[0], help=f"D (default: {FULL[0]})")
    parser.add_argument("--epochs", type=int, default=FULL[1], help=f"default: {FULL[1]}")
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
    limit, study, size = Limit(options.seconds), find_folder("report"), name_size(options.dim, options.epochs)
    train_cells(
        cells(options.dim, options.epochs), study, study / size / "results", options.runs / size, options, limit
    )


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
