"""Trains the cells of a study; what has a result is not trained again, what was stopped goes on.

    python -m studies.train stability --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/stability --jobs=2

Each cell is a run of `train.py` in a folder of --runs, and its result is kept under `studies/STUDY/results`. --jobs
trains so many at a time, on an equal share of the cores each: two short networks on a core each are finished before
one after the other on both. The share decides the last bits of a result.
"""

import argparse
import concurrent.futures
import itertools
import os
import subprocess
import sys
from pathlib import Path

from studies import STUDIES, results_of
from studies.cells import Cell
from studies.results import collect, is_kept

_ROOT = Path(__file__).parents[1]


def main() -> int:
    """0, or 1 where a cell failed; a run whose loss is not finite is a result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--only", default="", help="cells whose name contains this")
    options = parser.parse_args()
    results = results_of(options.study)
    cells = [c for c in STUDIES[options.study]() if not is_kept(c, results) and options.only in c.name]
    options.runs.mkdir(parents=True, exist_ok=True)
    data = (f"--config.data.manual_dir={options.manual_dir}", f"--config.data.data_dir={options.runs / 'data'}")

    cores, counter = sorted(os.sched_getaffinity(0)), itertools.count()
    share = max(len(cores) // options.jobs, 1)

    def take_cores() -> None:  # the affinity of this thread, which the processes it starts inherit
        first = next(counter) * share % len(cores)
        os.sched_setaffinity(0, cores[first : first + share])

    with concurrent.futures.ThreadPoolExecutor(options.jobs, initializer=take_cores) as pool:
        done = list(pool.map(lambda cell: _train(cell, options.runs, results, data), cells))
    return 0 if all(done) else 1


def _train(cell: Cell, runs: Path, results: Path, data: tuple[str, ...]) -> bool:
    path = runs / f"{cell.name}.log"
    with path.open("w") as log:
        command = [sys.executable, "train.py", *cell.arguments, *data, f"--workdir={cell.workdir(runs)}"]
        status = subprocess.run(command, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT).returncode
    last = (path.read_text().strip().splitlines() or [""])[-1]
    finished = status == 0 or "the loss is" in last
    if finished:
        collect(cell, runs, results)
    print(f"{cell.name}: {'done' if status == 0 else last}", flush=True)
    return finished


if __name__ == "__main__":
    sys.exit(main())
