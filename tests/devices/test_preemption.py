"""SIGTERM and ctrl-C to a single process; tests/faults covers clusters."""

import os
import signal
import threading

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


def press_ctrl_c():
    os.kill(os.getpid(), signal.SIGINT)


def test_the_first_ctrl_c_lets_a_deferred_block_save_and_the_second_interrupts_it(capfd):
    done = []

    def work():
        with Preemption().noticed() as preemption, preemption.deferred():
            press_ctrl_c()
            done.append(preemption.requested())
            stop = preemption.stop("saved at step 3")
            done.extend([str(stop), stop.status])
            press_ctrl_c()
            done.append("not reached")

    with pytest.raises(KeyboardInterrupt):
        work()
    saved = "interrupted, saved at step 3: run the same command again to resume from the last checkpoint"
    assert done == [True, saved, 130]
    assert capfd.readouterr().err == "\nsaving; press ctrl-C again to stop without\n"


def test_ctrl_c_outside_of_a_deferred_block_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt), Preemption().noticed():
        press_ctrl_c()


def test_a_thread_that_cannot_listen_works_all_the_same():
    results = []

    def work():
        with Preemption().noticed() as preemption:
            results.append(preemption.requested())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert results == [False]
