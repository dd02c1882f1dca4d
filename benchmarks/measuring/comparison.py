"""A row of the comparison with PyTorch: neighbouring repetitions of both sides, undisturbed by other processes."""

import dataclasses
import math
import tempfile
import time
from pathlib import Path

from benchmarks.measuring.quiet import ATTEMPTS, QUIET
from benchmarks.measuring.torch_trials import find_settings
from benchmarks.measuring.turns import Process, require_agreement, started
from benchmarks.peers.torch_settings import TorchSettings
from benchmarks.workloads.rows import OURS, PLAIN, ROWS, TORCH


@dataclasses.dataclass(frozen=True)
class Measurement:
    """Times in seconds of all repetitions, for the whole work, and peak memory, by subject, for one row."""

    seconds: dict[str, list[float]]
    stepping_mib: dict[str, float]  # while the repetitions run
    process_mib: dict[str, float]  # since the process started
    others: list[float]  # share of other processes in each repetition, of both sides the larger one
    torch: TorchSettings  # the best of those that were tried
    trials: dict[str, float | None]  # seconds by PyTorch's settings; None: it does not run with them
    plain_seconds: float | None = None  # of one repetition of plain Flax

    @property
    def is_quiet(self) -> list[bool]:
        """Whether each repetition was undisturbed."""
        return [share <= QUIET for share in self.others]

    @property
    def discarded(self) -> float:
        """Share of the repetitions that were disturbed."""
        return 1 - sum(self.is_quiet) / len(self.others) if self.others else 0.0

    def quiet_seconds(self) -> dict[str, list[float]]:
        """Return the times of the undisturbed repetitions by subject."""
        quiet = self.is_quiet
        return {
            name: [time for time, counts in zip(seconds, quiet, strict=True) if counts]
            for name, seconds in self.seconds.items()
        }


def measure(
    name: str,
    repetitions: int,
    *,
    settings: TorchSettings | None = None,
    plain: bool = False,
    deadline: float = math.inf,
) -> Measurement:
    """Measure a row until `repetitions` of both sides were undisturbed, or three times as many were made.

    Args:
        name: that of the row.
        repetitions: how many undisturbed ones are wanted.
        settings: those of PyTorch; by default the fastest are found first.
        plain: whether to time plain Flax as well, once, where the row has it.
        deadline: of `time.monotonic`, after which no repetition is started but the first.
    """
    with tempfile.TemporaryDirectory() as text:
        folder, sampling = Path(text), ROWS[name].work == "sample"
        with started(OURS, name, folder, check=sampling) as ours:  # first, because it writes the weights
            trials: dict[str, float | None] = {}
            if settings is None:
                settings, trials = find_settings(name, folder)
            with started(TORCH, name, folder, check=sampling, settings=settings) as torch:
                require_agreement(name, {process.subject: process.number for process in (ours, torch)})
                if not sampling:
                    measurement = _take_turns(ours, torch, repetitions, deadline)
        if sampling:
            with started(OURS, name, folder) as ours, started(TORCH, name, folder, settings=settings) as torch:
                measurement = _take_turns(ours, torch, repetitions, deadline)
        seconds = dict(measurement.seconds)
        seconds[TORCH] = [ROWS[name].extrapolation * time for time in seconds[TORCH]]
        return dataclasses.replace(
            measurement,
            seconds=seconds,
            torch=settings,
            trials=trials,
            plain_seconds=_time_plain(name, folder, torch.number) if plain and PLAIN in ROWS[name].peers else None,
        )


def _take_turns(ours: Process, torch: Process, repetitions: int, deadline: float) -> Measurement:
    measurement = Measurement({OURS: [], TORCH: []}, {}, {}, [], TorchSettings(), {})
    while not measurement.others or (
        sum(measurement.is_quiet) < repetitions
        and len(measurement.others) < ATTEMPTS * repetitions
        and time.monotonic() < deadline
    ):
        others = []
        for process in (ours, torch):
            answer = process.repeat()
            others.append(answer["others"])
            measurement.seconds[process.subject].append(answer["seconds"])
            measurement.stepping_mib[process.subject] = answer["stepping_mib"]  # a peak, so the last is the largest
            measurement.process_mib[process.subject] = answer["process_mib"]
        measurement.others.append(max(others))
    return measurement


def _time_plain(name: str, folder: Path, number: float) -> float:
    with started(PLAIN, name, folder) as process:
        require_agreement(name, {PLAIN: process.number, TORCH: number})
        return process.repeat()["seconds"]
