"""Wall-clock time of a call, repeated for long enough to be meaningful."""

import math
import time
from collections.abc import Callable
from typing import Any


def measure_seconds(call: Callable[[], Any], calls: int) -> float:
    """Return the mean time in seconds of `calls` calls."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_that_fill(seconds: float, call: Callable[[], Any]) -> int:
    """Return how many calls take this long in total, at least one; this makes one call to find out."""
    return max(1, math.ceil(seconds / measure_seconds(call, 1)))
