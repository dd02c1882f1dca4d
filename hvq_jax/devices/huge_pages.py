"""Huge pages for large arrays on CPU, for which this process has to start again.

XLA requests memory for the temporaries of each step from the system and returns it after the step: 350 MiB for a step
of D = 256, in pages of 4 KiB, each of which costs a page fault. In pages of 2 MiB the step takes nine tenths of the
time, and as much memory. Where Linux gives these to those who ask for them (`madvise`, the default of many
distributions), glibc asks if GLIBC_TUNABLES says so when a process starts (glibc 2.35 and later; earlier ones ignore
it).
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

_VARIABLE, _OPTION = "GLIBC_TUNABLES", "glibc.malloc.hugetlb"
_SYSTEM = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def environment(variables: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which a process must start to get huge pages; none where that would change nothing.

    Your own setting, such as GLIBC_TUNABLES=glibc.malloc.hugetlb=0, is kept.
    """
    try:
        asked_for = "[madvise]" in _SYSTEM.read_text(encoding="ascii")
    except OSError:  # another system than Linux, or a kernel without them
        return {}
    before = variables.get(_VARIABLE, "")
    if not asked_for or _OPTION in before:
        return {}
    return {_VARIABLE: ":".join(filter(None, (before, f"{_OPTION}=1")))}


def start_again() -> None:
    """Run the program of this process again from its start, with huge pages, unless it has them or cannot get them.

    Nothing may have been printed or begun. A debugger's process goes on as it is.
    """
    variables = environment()
    if variables and sys.executable and sys.gettrace() is None:
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **variables})
