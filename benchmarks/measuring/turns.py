"""Subjects that take turns: processes that perform a repetition on request over a pipe. Both ends of the pipe."""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from benchmarks.measuring.memory import forget_peak, peak_mib
from benchmarks.measuring.timing import calls_that_fill, measure_seconds
from benchmarks.workloads.rows import OURS, ROWS, TORCH, Subject
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # relative, of the number that all subjects compute
SHORTEST = 0.5  # minimum seconds of a repetition
PAUSE = 0.05  # seconds between repetitions, because threads of the previous one may still be spinning


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Times in seconds of all repetitions, for the whole work, and peak memory, by subject, for one row."""

    seconds: dict[str, list[float]]
    stepping_mib: dict[str, float]  # while the repetitions run
    process_mib: dict[str, float]  # since the process started


class Process:
    """A subject in a separate process, which performs a repetition on request over a pipe."""

    def __init__(self, subject: str, name: str, folder: Path, *, check: bool):
        self.subject = subject
        self._log: IO[str] = (folder / f"{subject}.log").open("w+")
        command = [sys.executable, "-m", "benchmarks.measuring.subjects", subject, name, str(folder)]
        self._process = subprocess.Popen(
            [*command, *(["--check"] if check else [])],
            cwd=_ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.number: float = self._answer()["number"]

    def repeat(self) -> dict[str, float]:
        """Perform another repetition and return the answer of `serve`."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # `_answer` then reports that the process has ended
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            answer: dict[str, float] = json.loads(line)
            return answer
        self._log.seek(0)
        lines = self._log.read().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        raise UserError(f"the process of {self.subject} ended with status {self._process.wait()}: {last}")

    def close(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(name: str, *, check: bool = False) -> Iterator[list[Process]]:
    """Start the processes of a row and check that they agree; ours is started first because it writes the weights."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes: list[Process] = []
        for subject in (OURS, *ROWS[name].peers):
            process = Process(subject, name, Path(folder), check=check)
            stack.callback(process.close)
            processes.append(process)
        require_agreement(name, {process.subject: process.number for process in processes})
        yield processes


def require_agreement(name: str, numbers: dict[str, float]) -> None:
    """Raise UserError unless all subjects of row `name` have computed the same number as PyTorch."""
    for subject, number in numbers.items():
        if not math.isclose(number, numbers[TORCH], rel_tol=TOLERANCE):
            raise UserError(
                f"{name}: {subject} computes {number:.7g} and PyTorch {numbers[TORCH]:.7g} from the same weights and "
                f"batch; they may differ by at most {TOLERANCE:g} (relative), so they cannot be compared"
            )


def measure(name: str, repetitions: int) -> Measurement:
    """Measure all repetitions of a row."""
    if ROWS[name].work == "sample":
        with started(name, check=True):
            pass
    measurement = Measurement({}, {}, {})
    with started(name) as processes:
        for _ in range(repetitions):
            for process in processes:
                time.sleep(PAUSE)
                subject, answer = process.subject, process.repeat()
                factor = ROWS[name].extrapolation if subject == TORCH else 1.0
                measurement.seconds.setdefault(subject, []).append(factor * answer["seconds"])
                measurement.stepping_mib[subject] = answer["stepping_mib"]  # a peak, so the last is the largest
                measurement.process_mib[subject] = answer["process_mib"]
    return measurement


def serve(subject: Subject) -> None:
    """Print the number to compare, then perform a repetition per line on stdin; called in the subject's process."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # so that output of libraries is not taken for an answer
    call, number = subject
    first = number(call())  # compiles
    start_up_mib = peak_mib()
    forget_peak()
    calls = calls_that_fill(SHORTEST, call)
    # Print this last, once this process is idle: the others start on receiving it.
    print(json.dumps({"number": first}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds, stepping_mib = measure_seconds(call, calls), peak_mib()
        answer = {
            "seconds": seconds,
            "stepping_mib": stepping_mib,
            "process_mib": max(start_up_mib, stepping_mib),
        }
        print(json.dumps(answer), file=answers, flush=True)
