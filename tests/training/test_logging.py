import os
import signal
import sys
from types import SimpleNamespace

import pytest

from hvq_jax.devices.preemption import Preemption
from hvq_jax.training.logging import set_quiet


@pytest.fixture
def reported(monkeypatch):
    """The exceptions that a quiet program reports of those that nothing can catch."""
    exceptions = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: exceptions.append(unraisable.exc_value))
    set_quiet()
    set_quiet()
    return exceptions


def test_a_program_is_quiet_about_arrays_that_arrive_after_a_failed_read(reported):
    late, other = (RuntimeError(text) for text in ("Event loop is closed", "another"))
    for error in (late, other):
        sys.unraisablehook(SimpleNamespace(exc_value=error))
    assert reported == [other]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_a_destructor_is_neither_reported_nor_forgotten(reported, number):
    class Destroyed:
        def __del__(self):
            os.kill(os.getpid(), number)

    with Preemption().noticed() as preemption:
        Destroyed()
        assert preemption.requested()
    assert not reported
