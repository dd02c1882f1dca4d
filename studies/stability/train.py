"""Trains the cells of the study one after the other; what is finished is not trained again, what was stopped goes on.

    python -m studies.stability.train --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/stability
    python -m studies.stability.train --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/stability --long

Each cell is a run of `train.py` with a workdir of its own.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from studies.stability.cells import all_cells, long_cells

_ROOT = Path(__file__).parents[2]


def main() -> int:
    """The status of the first cell that fails, or 0; a run whose loss is not finite is a result, and goes on."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--long", action="store_true", help="the two runs of forty epochs in place of the table's")
    options = parser.parse_args()
    data = (f"--config.data.manual_dir={options.manual_dir}", f"--config.data.data_dir={options.runs / 'data'}")
    for cell in long_cells() if options.long else all_cells():
        workdir = cell.workdir(options.runs)
        command = [sys.executable, "train.py", *cell.options(), *data, f"--workdir={workdir}"]
        workdir.parent.mkdir(parents=True, exist_ok=True)
        with (workdir.parent / f"{cell.name}.log").open("w") as log:
            done = subprocess.run(command, cwd=_ROOT, stdout=log, stderr=subprocess.STDOUT)
        last = (workdir.parent / f"{cell.name}.log").read_text().strip().splitlines()[-1]
        print(f"{cell.name}: {'done' if done.returncode == 0 else last}", flush=True)
        if done.returncode and "the loss is" not in last:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
