"""Subjects that take turns: each a process of its own, told over a pipe to do a repetition. Both ends of the pipe."""

import contextlib
import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks.memory import forget_peak, peak_mib
from benchmarks.rows import OURS, ROWS, TORCH
from benchmarks.timing import calls_that_fill, seconds_of
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-4  # relative, of the number that both sides compute
SHORTEST = 0.5  # seconds of a repetition, at the least
PAUSE = 0.05  # seconds between repetitions: threads of the one before may still be spinning

# A subject's call, and the number that must agree, from what the call returns.
Subject = tuple[Callable[[], Any], Callable[[Any], float]]


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Of one row, by subject: seconds of every repetition, the whole work's, and peak memory."""

    seconds: dict[str, list[float]]
    stepping_mib: dict[str, float]  # while the repetitions run
    process_mib: dict[str, float]  # since the process started


class Process:
    """A subject in a process of its own, told over a pipe to do a repetition."""

    def __init__(self, subject: str, name: str, folder: Path, *, check: bool):
        self.subject = subject
        self._log: IO[str] = (folder / f"{subject}.log").open("w+")
        command = [sys.executable, "-m", "benchmarks.subjects", subject, name, str(folder)]
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
        """One more repetition: what `serve` answers."""
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):  # then there is no answer either
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
        last = next((line for line in reversed(lines) if line.strip()), "it said nothing")
        raise UserError(f"the process of {self.subject} ended with status {self._process.wait()}: {last}")

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()


@contextlib.contextmanager
def started(name: str, *, check: bool = False) -> Iterator[list[Process]]:
    """The processes of a row, which have found to compute the same; ours first, since it writes the weights."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        processes: list[Process] = []
        for subject in (OURS, *ROWS[name].peers):
            process = Process(subject, name, Path(folder), check=check)
            stack.callback(process.close)
            processes.append(process)
        require_agreement(name, {process.subject: process.number for process in processes})
        yield processes


def require_agreement(name: str, numbers: dict[str, float]) -> None:
    """Raises UserError unless all subjects of row `name` have computed the same number as PyTorch."""
    for subject, number in numbers.items():
        if not math.isclose(number, numbers[TORCH], rel_tol=TOLERANCE):
            raise UserError(
                f"{name}: {subject} computes {number:.7g} and PyTorch {numbers[TORCH]:.7g} from the same weights and "
                f"batch; they may differ by {TOLERANCE:g} of it, so there is nothing to compare"
            )


def measure(name: str, repetitions: int) -> Measurement:
    """All repetitions of a row."""
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
                measurement.stepping_mib[subject] = answer["stepping_mib"]  # peaks: the last is the largest
                measurement.process_mib[subject] = answer["process_mib"]
    return measurement


def serve(subject: Subject) -> None:
    """In the subject's process: answers every line on stdin with a repetition, after the number to compare."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints is not an answer
    call, number = subject
    first = number(call())  # compiles
    start_up_mib = peak_mib()
    forget_peak()
    calls = calls_that_fill(SHORTEST, call)
    # Only now, when this process has fallen silent: the others start upon it.
    print(json.dumps({"number": first}), file=answers, flush=True)
    for _ in sys.stdin:
        seconds, stepping_mib = seconds_of(call, calls), peak_mib()
        answer = {
            "seconds": seconds,
            "stepping_mib": stepping_mib,
            "process_mib": max(start_up_mib, stepping_mib),
        }
        print(json.dumps(answer), file=answers, flush=True)
