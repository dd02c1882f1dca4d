"""The largest resident set of this process, since its start or since the last reset."""

import contextlib
import ctypes
import gc
import re
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_RESET = Path("/proc/self/clear_refs")


def forget_peak() -> bool:
    """Return freed memory to the system and reset the peak; return False if the system does not support it."""
    gc.collect()
    with contextlib.suppress(AttributeError, OSError):  # available only in glibc
        ctypes.CDLL(None).malloc_trim(0)
    try:
        _RESET.write_text("5")
    except OSError:
        return False
    return True


def peak_mib() -> float:
    """Return the peak since `forget_peak`, or since the start of the process if it was not called or not supported."""
    with contextlib.suppress(OSError):
        if found := re.search(r"^VmHWM:\s+(\d+) kB$", _STATUS.read_text(), re.MULTILINE):
            return int(found[1]) / 2**10
    import resource  # Windows has no such module

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
