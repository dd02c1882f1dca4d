"""Train the cells of a study that have no result yet; run it again to resume.

    python -m studies.train stability --manual_dir=/usr/share/datasets/fashion-mnist --runs=runs/stability --jobs=2

Each cell is a run of `train.py` in a folder of --runs, and its result is kept in `studies/STUDY/results`. --jobs trains
several at a time. On CPU each gets an equal share of the cores: two small networks on one core each finish earlier than
one after the other on both. The share affects the last bits of a result. On a GPU each gets an equal share of the
memory, and takes as many steps per compiled dispatch as lie between two logs.

With --seconds the runs are stopped in time for the command to end within the limit: they save, and the same command
resumes them. --pack packs the results into at most 8 files of at most 16 MiB, to be copied to another machine:

    cat FOLDER/STUDY.tar.* | tar -x -C studies/STUDY
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

from hvq_jax.command import exit_status
from hvq_jax.errors import UserError
from hvq_jax.files import read_arrays
from studies import STUDIES, find_folder, find_results
from studies.cells import Cell
from studies.packing import pack
from studies.results import IMAGE_ARRAYS, collect, is_finished, is_kept

_ROOT = Path(__file__).parents[1]
_DEVICE_MEMORY = 0.9  # share of a GPU's memory reserved by all runs together

# Seconds of --seconds
START = 60.0  # a run is started only if at least this long remains before it would be stopped
SAVE = 20.0  # for a run to save and exit after SIGTERM, before it is killed
_KEEP = 20.0  # then, for the reconstructions of a run that has just ended
_PACK = 5.0  # then, for everything else


class Limit:
    """The remaining time of the command."""

    def __init__(self, seconds: float = math.inf) -> None:
        self._end = time.monotonic() + seconds

    def training(self) -> float:
        """Return the seconds until the runs are stopped."""
        return self.keeping() - SAVE - _KEEP

    def keeping(self) -> float:
        """Return the seconds until results must be written."""
        return self._end - time.monotonic() - _PACK

    def stop(self) -> None:
        """Stop the runs now."""
        self._end = min(self._end, time.monotonic() + SAVE + _KEEP + _PACK)

    @contextlib.contextmanager
    def stopped_by_sigterm(self) -> Iterator[None]:
        """Stop the runs when this process receives SIGTERM during the block."""
        before = signal.signal(signal.SIGTERM, lambda *_: self.stop())
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


@dataclasses.dataclass(frozen=True)
class Machine:
    """How runs share the device of this machine."""

    backend: str  # "cpu", "gpu" or "tpu"
    jobs: int  # runs at a time
    place: Mapping[str, str]  # devices and version of JAX, as results keep them

    @classmethod
    def found(cls, jobs: int) -> "Machine":
        """Return the machine as JAX sees it from a separate process, so that this one takes no memory of the device."""
        code = (
            "import json, jax; from studies.comparison import name_place; "
            "print(json.dumps([jax.default_backend(), name_place()]))"
        )
        asked = subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True, check=False)
        if asked.returncode:
            raise UserError(f"JAX finds no device: {(asked.stderr.strip().splitlines() or [''])[-1]}")
        backend, place = json.loads(asked.stdout.splitlines()[-1])
        return cls(backend, 1 if backend == "tpu" else jobs, place)  # only one process can use a TPU

    def steps_per_dispatch(self, cell: Cell) -> int:
        """Return the steps per compiled dispatch, at most those between two logs."""
        return 1 if self.backend == "cpu" else cell.log_every_steps

    def environment(self) -> dict[str, str]:
        """Return the environment of a run."""
        if self.backend != "gpu":
            return dict(os.environ)
        return {"XLA_PYTHON_CLIENT_MEM_FRACTION": f"{_DEVICE_MEMORY / self.jobs:.3f}", **os.environ}

    def thread_initializer(self) -> Callable[[], None]:
        """Return the initializer of a thread that starts runs: on CPU it takes its share of the cores, for its runs."""
        cores, counter = sorted(os.sched_getaffinity(0)), itertools.count()
        share = max(len(cores) // self.jobs, 1)

        def take_cores() -> None:
            if self.backend == "cpu":
                first = next(counter) * share % len(cores)
                os.sched_setaffinity(0, cores[first : first + share])

        return take_cores


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `train_cells` other than runs, data and jobs."""
    parser.add_argument("--only", default="", help="cells whose name contains this")
    parser.add_argument("--seconds", type=float, default=math.inf, help="time limit of the command (default: none)")
    parser.add_argument("--pack", type=Path, help="folder for the packed results")


def train_cells(
    cells: list[Cell], study: Path, results: Path, runs: Path, options: argparse.Namespace, limit: Limit
) -> None:
    """Train those of `cells` that have no result in `results`, and pack all results.

    Args:
        cells: the cells of the study.
        study: the folder of the study, which contains `results`.
        results: the folder of the results.
        runs: the folder of the runs.
        options: options of the command line: `manual_dir`, `jobs` and those of `add_options`.
        limit: the remaining time.

    Raises:
        UserError: the data is missing, or cells failed.
    """
    manual_dir, runs = Path(options.manual_dir).absolute(), runs.absolute()
    if not any(manual_dir.glob("train-images-idx3-ubyte*")):
        raise UserError(
            f"--manual_dir={options.manual_dir}: Fashion-MNIST is not there; install Debian's package "
            "dataset-fashion-mnist, or copy its four published files"
        )
    missing = [cell for cell in cells if not is_kept(cell, results) and options.only in cell.name]
    runs.mkdir(parents=True, exist_ok=True)
    data = (f"--config.data.manual_dir={manual_dir}", f"--config.data.data_dir={runs / 'data'}")
    machine = Machine.found(options.jobs)
    pool = concurrent.futures.ThreadPoolExecutor(machine.jobs, initializer=machine.thread_initializer())
    with limit.stopped_by_sigterm(), pool:
        outcomes = list(pool.map(lambda cell: _train(cell, runs, results, data, machine, limit), missing))
    print(f"{sum(is_kept(cell, results) for cell in cells)} of {len(cells)} cells have a result", flush=True)
    if options.pack is not None and results.exists():
        for file in pack(results, study, options.pack):
            print(file, flush=True)
    if failed := [cell.name for cell, outcome in zip(missing, outcomes, strict=True) if outcome == "failed"]:
        raise UserError(f"failed, see their .log files in {runs}: {', '.join(failed)}")


def _train(cell: Cell, runs: Path, results: Path, data: tuple[str, ...], machine: Machine, limit: Limit) -> str:
    """Train a cell, and keep its result if it ends; return "done", "failed", or "missing" if time ran out."""
    if limit.training() < START:
        print(f"{cell.name}: not started, too little time is left", flush=True)
        return "missing"
    path = runs / f"{cell.name}.log"
    dispatch = f"--config.autoencoder.steps_per_dispatch={machine.steps_per_dispatch(cell)}"
    command = [*_command(cell, runs), *data, dispatch]
    with path.open("w") as log:
        status = run_until(command, log, machine, limit.training, SAVE)
        finished = status == 0 and is_finished(cell, runs)  # otherwise the summary may be of another config
        diverged = status != 0 and "the loss is" in last_line(path)
        images = None
        if finished and cell.num_images:
            file = cell.workdir(runs) / "images.npz"
            status = run_until(_reconstruct(cell, runs, file), log, machine, limit.keeping, 0.0)
            finished = status == 0
            images = read_arrays(file, IMAGE_ARRAYS) if finished else None
    if finished or diverged:
        collect(cell, runs, results, machine.place, images)
        print(f"{cell.name}: {'done' if finished else last_line(path)}", flush=True)
        return "done"
    killed = status == -signal.SIGKILL and limit.training() <= 0
    stopped = killed or status in (0, -signal.SIGTERM)
    print(f"{cell.name}: {'stopped, to be resumed' if stopped else last_line(path)}", flush=True)
    return "missing" if stopped else "failed"


def _command(cell: Cell, runs: Path) -> list[str]:
    return [sys.executable, "train.py", *cell.arguments, f"--workdir={cell.workdir(runs)}"]


def _reconstruct(cell: Cell, runs: Path, file: Path) -> list[str]:
    options = [str(cell.workdir(runs)), str(file), f"--count={cell.num_images}"]
    return [sys.executable, "-m", "studies.reconstruct", *options]


def run_until(command: list[str], log: IO[str], machine: Machine, left: Callable[[], float], grace: float) -> int:
    """Run a command and return its status; stop it when no time is left, kill it after another `grace` seconds."""
    process = subprocess.Popen(
        command,
        cwd=_ROOT,
        env=machine.environment(),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    while process.poll() is None and left() > 0:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(min(left(), 1.0), 0.0))
    if process.poll() is None:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace)
    if process.poll() is None:
        process.kill()
    return process.wait()


def last_line(path: Path) -> str:
    """Return the last line of a log, "" if it is empty."""
    return (path.read_text().strip().splitlines() or [""])[-1]


def main(arguments: list[str]) -> None:
    """Train the cells of one study."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--manual_dir", required=True, help="the published files of Fashion-MNIST")
    parser.add_argument("--runs", type=Path, required=True, help="the folder of the runs")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    add_options(parser)
    options = parser.parse_args(arguments)
    study = options.study
    train_cells(
        STUDIES[study](), find_folder(study), find_results(study), options.runs, options, Limit(options.seconds)
    )


if __name__ == "__main__":
    sys.exit(exit_status(lambda: main(sys.argv[1:])))
