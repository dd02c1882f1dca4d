"""Subjects that take turns: processes that perform a repetition on request over a pipe. Both ends of the pipe."""

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchmarks.measuring.memory import forget_peak, peak_mib
from benchmarks.measuring.quiet import read, share_of_others
from benchmarks.measuring.timing import calls_that_fill, measure_seconds
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.workloads.rows import TORCH, Subject
from hvq_jax.devices import huge_pages
from hvq_jax.errors import UserError

_ROOT = Path(__file__).parents[2]
TOLERANCE = 1e-4  # relative, of the number that all subjects compute
SHORTEST = 1.0  # minimum seconds of a repetition: 3 % of two cores are then six ticks of the kernel's clock


class Process:
    """A subject in a separate process, which performs a repetition on request over a pipe.

    In between it is stopped, because its threads may spin.
    """

    def __init__(
        self,
        subject: str,
        name: str,
        folder: Path,
        *,
        check: bool = False,
        positions: int = 0,
        settings: TorchSettings | None = None,
    ):
        self.subject = subject
        self._log: IO[str] = tempfile.TemporaryFile("w+")  # noqa: SIM115 - until `close`
        command = [sys.executable, "-m", "benchmarks.measuring.subjects", subject, name, str(folder)]
        command += ["--check"] if check else []
        command += [f"--positions={positions}"] if positions else []
        command += [f"--torch={json.dumps(dataclasses.asdict(settings))}"] if settings else []
        own = settings.environment if settings else huge_pages.environment()  # as our commands start
        self._process = subprocess.Popen(
            command,
            cwd=_ROOT,
            env={**os.environ, "JAX_PLATFORMS": "cpu", **own},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.number: float = self._answer()["number"]

    def repeat(self) -> dict[str, float]:
        """Perform another repetition and return the answer of `serve`, with the share of others as `others`."""
        assert self._process.stdin
        self._process.send_signal(signal.SIGCONT)
        before = read()
        with contextlib.suppress(BrokenPipeError):  # `_answer` then reports that the process has ended
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        answer = self._answer()
        return {**answer, "others": share_of_others(before, read())}

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        if line := self._process.stdout.readline():
            answer: dict[str, float] = json.loads(line)
            self._process.send_signal(signal.SIGSTOP)
            return answer
        self._log.seek(0)
        lines = self._log.read().split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "no output")
        raise UserError(f"the process of {self.subject} ended with status {self._process.wait()}: {last}")

    def close(self) -> None:
        """Kill the process, unless that has been done."""
        if not self._log.closed:
            self._process.kill()
            self._process.communicate()
            self._log.close()


@contextlib.contextmanager
def started(subject: str, name: str, folder: Path, **options: Any) -> Iterator[Process]:
    """Start a process that is killed at the end."""
    process = Process(subject, name, folder, **options)
    try:
        yield process
    finally:
        process.close()


def require_agreement(name: str, numbers: dict[str, float]) -> None:
    """Raise UserError unless all subjects of row `name` have computed the same number as PyTorch."""
    for subject, number in numbers.items():
        if not math.isclose(number, numbers[TORCH], rel_tol=TOLERANCE):
            raise UserError(
                f"{name}: {subject} computes {number:.7g} and PyTorch {numbers[TORCH]:.7g} from the same weights and "
                f"batch; they may differ by at most {TOLERANCE:g} (relative), so they cannot be compared"
            )


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
        # The first call after a stop takes up to 1.8 times as long on a virtual machine that gives its free memory back
        # to the host after a few seconds (free page reporting): the host has to provide it again.
        call()
        seconds, stepping_mib = measure_seconds(call, calls), peak_mib()
        answer = {
            "seconds": seconds,
            "stepping_mib": stepping_mib,
            "process_mib": max(start_up_mib, stepping_mib),
        }
        print(json.dumps(answer), file=answers, flush=True)
