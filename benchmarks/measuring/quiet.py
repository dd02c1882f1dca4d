"""The share of the machine's CPU time that other processes take, by which a disturbed repetition is known.

The kernel counts the time of all processes, of interrupts, and of other guests of the host (steal). What remains of it
without the time of this process and its descendants is that of everything else. Times have a resolution of 10 ms, so a
repetition should take half a second or more.
"""

import contextlib
import dataclasses
import os
import statistics
from collections.abc import Callable
from typing import Any, TypeVar

import psutil

from benchmarks.measuring.timing import calls_that_fill, measure_seconds

QUIET = 0.03  # the largest share of others in a repetition that counts
ATTEMPTS = 3  # repetitions that are made, as a multiple of the quiet ones that are wanted
SHORTEST = 0.5  # seconds of a repetition in this process
T = TypeVar("T")
_IDLE = ("idle", "iowait")
_COUNTED_TWICE = ("guest", "guest_nice")  # in user and nice


@dataclasses.dataclass(frozen=True)
class Reading:
    """CPU seconds since some fixed time."""

    total: float  # of all cores, idle or not
    busy: float  # of those, not idle
    own: float  # of this process and its descendants, including those that have ended


def read(process_id: int | None = None) -> Reading:
    """Return the current times; those of its own are of this process, or of `process_id`, and all its descendants."""
    own = _tree_seconds(psutil.Process(process_id or os.getpid()))
    times = psutil.cpu_times()._asdict()
    total = sum(seconds for name, seconds in times.items() if name not in _COUNTED_TWICE)
    return Reading(total, total - sum(times.get(name, 0.0) for name in _IDLE), own)


def share_of_others(before: Reading, after: Reading) -> float:
    """Return the CPU time of everything else between two readings, as a share of that of all cores.

    >>> share_of_others(Reading(10.0, 4.0, 1.0), Reading(12.0, 5.5, 2.0))
    0.25
    """
    total = after.total - before.total
    others = (after.busy - before.busy) - (after.own - before.own)
    return max(0.0, others / total) if total > 0 else 0.0


@dataclasses.dataclass
class Quietly:
    """Repeats what was disturbed, and counts how often.

    >>> quietly = Quietly()
    >>> quietly(lambda: 5)
    5
    """

    made: int = 0  # repetitions, also those that were discarded
    discarded: int = 0
    disturbed: int = 0  # that count nevertheless, because the machine did not become quiet

    def __call__(self, repetition: Callable[[], T]) -> T:
        """Return what the first of three repetitions returns in which others took at most `QUIET`, or the last one."""
        for attempt in range(1, ATTEMPTS + 1):
            before = read()
            result = repetition()
            is_quiet = share_of_others(before, read()) <= QUIET
            self.made += 1
            if is_quiet or attempt == ATTEMPTS:
                break
            self.discarded += 1
        self.disturbed += not is_quiet
        return result

    def __str__(self) -> str:
        """Return what was discarded, and whether the times may be judged."""
        discarded = f"{self.discarded / max(self.made, 1):.0%} of {self.made} repetitions discarded"
        if not self.disturbed:
            return discarded
        return f"{discarded}; the machine was not quiet in {self.disturbed} others, so judge nothing by these times"


def median_seconds(call: Callable[[], Any], repetitions: int, quietly: Quietly) -> float:
    """Return the median time of a call over undisturbed repetitions, after one call that compiles."""
    call()
    calls = calls_that_fill(SHORTEST, call)
    return statistics.median(quietly(lambda: measure_seconds(call, calls)) for _ in range(repetitions))


def _tree_seconds(root: psutil.Process) -> float:
    seconds = 0.0
    for process in [root, *root.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended: its parent has its time
            times = process.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds
