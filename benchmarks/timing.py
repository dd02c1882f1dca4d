"""Wall-clock time of a call, long enough to be worth reading."""

import math
import time
from collections.abc import Callable
from typing import Any


def seconds_of(call: Callable[[], Any], calls: int) -> float:
    """Seconds a call, the mean of so many."""
    start = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - start) / calls


def calls_that_fill(seconds: float, call: Callable[[], Any]) -> int:
    """How many calls take so long together, at the least one; calls once to find out."""
    return max(1, math.ceil(seconds / seconds_of(call, 1)))
