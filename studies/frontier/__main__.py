"""Make the trainings and points of the frontier that have no result yet, the most important first.

    python -m studies.frontier --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/frontier --seconds=3600

Run it again to resume. Each training is a process of its own, --jobs of them at a time; results are written as they
come, to `studies/frontier/results/SIZE`. On a GPU choose --size=full and at most four jobs. --size=colour is for the
file that `studies.frontier.photographs` writes.
"""

import argparse
import concurrent.futures
import math
import os
import signal
import sys
from pathlib import Path

from hvq_jax.command import exit_status
from hvq_jax.devices.xla import keep_compiled_programs, set_cpu_options
from hvq_jax.errors import UserError
from studies.frontier.cells import SIZES, Training, trainings
from studies.frontier.results import is_made, results_folder
from studies.train import SAVE, START, Limit, Machine, last_line, run_until


def make_all(options: argparse.Namespace, limit: Limit) -> None:
    """Make those trainings whose name contains `options.only`, as far as time allows; raise UserError if any failed."""
    results = options.results or results_folder(options.size)
    chosen = [each for each in trainings(SIZES[options.size]) if options.only in each.name]
    missing = [each for each in chosen if not is_made(each, results)]
    runs = options.runs.absolute()
    runs.mkdir(parents=True, exist_ok=True)
    machine = Machine.found(options.jobs)
    pool = concurrent.futures.ThreadPoolExecutor(machine.jobs, initializer=machine.thread_initializer())
    with limit.stopped_by_sigterm(), pool:
        outcomes = list(pool.map(lambda each: _make(each, results, runs, options, machine, limit), missing))
    print(f"{sum(is_made(each, results) for each in chosen)} of {len(chosen)} trainings are made", flush=True)
    if failed := [each.name for each, outcome in zip(missing, outcomes, strict=True) if outcome == "failed"]:
        raise UserError(f"failed, see their .log files in {runs}: {', '.join(failed)}")


def _make(
    training: Training, results: Path, runs: Path, options: argparse.Namespace, machine: Machine, limit: Limit
) -> str:
    """Make a training; return "done", "failed", or "missing" if time ran out."""
    if limit.training() < START:
        return "missing"
    path = runs / f"{training.name}.log"
    command = [sys.executable, "-m", "studies.frontier.make", training.name, f"--size={options.size}"]
    folders = [f"--manual_dir={options.manual_dir}", f"--runs={runs}", f"--results={results.absolute()}"]
    with path.open("a") as log:
        status = run_until([*command, *folders], log, machine, limit.training, SAVE)
    if status == 0 and is_made(training, results):
        print(f"{training.name}: done", flush=True)
        return "done"
    stopped = status in (0, -signal.SIGTERM) or (status == -signal.SIGKILL and limit.training() <= 0)
    print(f"{training.name}: {'stopped, to be resumed' if stopped else last_line(path)}", flush=True)
    return "missing" if stopped else "failed"


def main(arguments: list[str]) -> None:
    """Make them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="small", help="default: small")
    parser.add_argument(
        "--manual_dir", default="/usr/share/datasets/fashion-mnist", help="the data (default: Debian's Fashion-MNIST)"
    )
    parser.add_argument("--runs", type=Path, default=Path("runs/frontier"), help="default: runs/frontier")
    parser.add_argument("--results", type=Path, help="folder of the results (default: the study's)")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time (default: 1)")
    parser.add_argument("--only", default="", help="trainings whose name contains this")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit of the command (default: none)")
    options = parser.parse_args(arguments)
    if options.jobs < 1:
        raise UserError(f"--jobs={options.jobs}: must be at least 1")
    if not os.path.exists(options.manual_dir):
        raise UserError(f"--manual_dir={options.manual_dir}: there is no such file or folder")
    options.manual_dir = os.path.abspath(options.manual_dir)
    set_cpu_options()
    keep_compiled_programs()
    make_all(options, Limit(options.seconds))


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
