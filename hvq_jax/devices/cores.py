"""The cores that this process may use, which on a shared machine are fewer than the machine has."""

import os


def number_of_cores() -> int:
    """Return how many cores the system runs this process on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
