"""Which settings of PyTorch are the fastest for a row: a few are tried, each on top of those that helped."""

import contextlib
import dataclasses
from pathlib import Path

from benchmarks.measuring.turns import Process, started
from benchmarks.peers.torch_settings import TorchSettings, changes
from benchmarks.workloads.rows import ROWS, TORCH
from hvq_jax.errors import UserError

_TURNS = 2
_POSITIONS = 4  # that PyTorch draws per repetition; all take the same time
_GAIN = 0.98  # a change is kept if it takes at most this share of the time


def find_settings(name: str, folder: Path) -> tuple[TorchSettings, dict[str, float | None]]:
    """Return the fastest settings of PyTorch for row `name`, whose weights are in `folder`.

    Each change takes turns with the best so far, and is kept if its shortest time is shorter.

    Returns:
        The settings, and the shortest time in seconds of all that were tried, by their description: None where
        PyTorch does not run with them. Times of samples are those of a few positions.
    """
    best, trials = TorchSettings(), dict[str, float | None]()
    positions = _POSITIONS if ROWS[name].work == "sample" else 0
    with contextlib.ExitStack() as stack:

        def start(settings: TorchSettings) -> Process:
            return stack.enter_context(started(TORCH, name, folder, positions=positions, settings=settings))

        process = start(best)
        for change in changes(trains=ROWS[name].work.startswith("train")):
            candidate = dataclasses.replace(best, **change)
            try:
                other = start(candidate)
            except UserError:
                trials[str(candidate)] = None
                continue
            times = [(_seconds(process), _seconds(other)) for _ in range(_TURNS)]
            before, after = map(min, zip(*times, strict=True))
            trials[str(best)] = min(before, trials.get(str(best)) or before)
            trials[str(candidate)] = after
            if after <= _GAIN * before:
                best, process, other = candidate, other, process
            other.close()
    return best, trials


def _seconds(process: Process) -> float:
    return process.repeat()["seconds"]
