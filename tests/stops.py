"""SIGTERM or ctrl-C at a chosen moment: moments are counted in calls and returns of Python functions.

Not in those of C functions: the interpreter handles no signal just before it calls one, but what the profiler calls
there does. A stop instead of the `__exit__` of a lock, which cannot happen to a user, left threading's own lock held,
and the next thread waited for ever.
"""

import os
import signal
import sys

from hvq_jax.devices.preemption import Preemption
from hvq_jax.errors import Preempted

SIGNALS = (signal.SIGTERM, signal.SIGINT)

_PYTHON = ("call", "return")


def count_calls(work):
    """Return the number of calls and returns of Python functions in `work`, once all caches are filled."""
    work()
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in _PYTHON

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


def is_stopped(work, call, number):
    """Send this process the signal `number` at one call of `work`; return whether that was noticed."""
    calls = 0

    def count(frame, event, argument):
        nonlocal calls
        calls += event in _PYTHON
        if calls == call and event in _PYTHON:
            sys.setprofile(None)
            os.kill(os.getpid(), number)

    with Preemption().noticed() as preemption:
        sys.setprofile(count)
        try:
            work()
        except (Preempted, KeyboardInterrupt):
            return True
        finally:
            sys.setprofile(None)
        return preemption.requested()  # it came in a destructor
