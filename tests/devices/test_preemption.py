"""SIGTERM to a single process; tests/faults covers clusters."""

import os
import signal

import pytest

from hvq_jax.devices.preemption import Preemption, uninterrupted
from hvq_jax.errors import Preempted


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def test_it_interrupts_at_once():
    done = []

    def work():
        with Preemption().noticed():
            done.append("before")
            terminate()
            done.append("after")

    with pytest.raises(Preempted, match="resume from the last checkpoint"):
        work()
    assert done == ["before"]


def test_deferred_it_waits_to_be_asked_for():
    with Preemption().noticed() as preemption, preemption.deferred():
        assert not preemption.requested()
        terminate()
        assert preemption.requested()


def test_watched_work_ends_between_two_items():
    seen = []

    def work(preemption):
        for item in preemption.watch(range(10)):
            seen.append(item)
            if item == 3:
                terminate()

    with Preemption().noticed() as preemption, preemption.deferred(), pytest.raises(Preempted):
        work(preemption)
    assert seen == [0, 1, 2, 3]


def test_the_handler_of_before_is_back_afterwards():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().noticed():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_uninterrupted_work_comes_to_its_end():
    done = []

    def work():
        with uninterrupted():
            terminate()
            done.append("inside")
        done.append("after")

    with Preemption().noticed(), pytest.raises(Preempted):
        work()
    assert done == ["inside"]
    before = signal.getsignal(signal.SIGTERM)
    with Preemption().noticed() as preemption, preemption.deferred():
        work()
        assert preemption.requested()
    assert done == ["inside", "inside", "after"]
    with uninterrupted():  # without a handler of Python's it is none of its business
        assert signal.getsignal(signal.SIGTERM) == before
