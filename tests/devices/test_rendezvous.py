"""Processes meet before they join: all of them return, or all of them say in one line who is missing or wrong."""

import contextlib
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from hvq_jax.devices import rendezvous
from hvq_jax.devices.rendezvous import meet
from hvq_jax.errors import UserError

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


@pytest.fixture(autouse=True, scope="module")
def soon():
    """Try again soon."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rendezvous, "_RETRY_SECONDS", 0.02)
        yield


def meet_together(members, *, seconds=20.0, delays=()):
    """Let each of `members`, (index, number of processes told), meet in a thread; return their errors, "" for none."""
    coordinator, errors = f"localhost:{free_port()}", [""] * len(members)

    def run(place, index, count, delay):
        time.sleep(delay)
        try:
            meet(coordinator, count, index, seconds=seconds)
        except UserError as error:
            errors[place] = str(error)

    delays = [*delays, *([0.0] * len(members))]
    threads = [
        threading.Thread(target=run, args=(place, *member, delays[place])) for place, member in enumerate(members)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


@settings(max_examples=4)
@given(st.integers(2, 6), st.randoms(use_true_random=False))
def test_processes_meet_in_any_order(count, random):
    members = [(index, count) for index in range(count)]
    random.shuffle(members)
    assert meet_together(members, delays=[random.choice((0.0, 0.3)) for _ in members]) == [""] * count


def test_the_missing_are_named_by_all_that_came():
    errors = meet_together([(0, 4), (2, 4)], seconds=1.5)
    assert errors == ["processes that have not started within 1.5 s: 1, 3 of 4"] * 2


def test_without_process_0_the_others_say_so():
    (error,) = meet_together([(1, 2)], seconds=1.0)
    assert "process 0 did not answer at localhost:" in error
    assert "within 1 s" in error


def test_another_number_of_processes_is_named():
    errors = meet_together([(0, 3), (1, 3), (2, 4)], delays=[0, 0, 0.5])
    assert errors == ["process 2 was told that it is one of 4, process 0 that there are 3"] * 3


def test_an_index_given_twice_is_named():
    errors = meet_together([(0, 3), (1, 3), (1, 3)], delays=[0, 0, 1.0])
    assert errors == ["two processes were told that they are process 1 of 3"] * 3


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_process_that_was_started_again_takes_its_place(order):
    port, met = free_port(), []

    def run(index):
        meet(f"localhost:{port}", 3, index, seconds=20.0)
        met.append(index)

    threads = [threading.Thread(target=run, args=(index,)) for index in (0, *order)]
    threads[0].start()
    for _ in range(1000):
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as died:
            died.sendall(b"hvq_jax 1 of 3\n")
            break
        time.sleep(0.01)
    for thread in threads[1:]:
        thread.start()
        time.sleep(0.3)  # so that they come in this order
    for thread in threads:
        thread.join()
    assert sorted(met) == [0, 1, 2]


@pytest.mark.parametrize("noise", [b"", b"GET / HTTP/1.1\r\n\r\n", b"hvq_jax x of y\n", b"\xff" * 200])
def test_strangers_are_ignored(noise):
    port = free_port()
    results = []

    def run(index):
        results.append(meet(f"localhost:{port}", 2, index, seconds=20.0))

    threads = [threading.Thread(target=run, args=(0,))]
    threads[0].start()
    for _ in range(100):
        with contextlib.suppress(OSError), socket.create_connection(("localhost", port)) as stranger:
            stranger.sendall(noise)
            break
        time.sleep(0.1)
    threads.append(threading.Thread(target=run, args=(1,)))
    threads[1].start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == [None, None]


def test_a_port_in_use_is_one_line():
    with socket.create_server(("localhost", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"^port {port} of the coordinator cannot be used"):
            meet(f"localhost:{port}", 2, 0, seconds=1.0)


@pytest.mark.parametrize("port", [0, 70000, 10**9])
def test_what_is_no_port_is_refused(port):
    with pytest.raises(UserError, match="port"):
        meet(f"localhost:{port}", 2, 0, seconds=0.1)


@pytest.mark.parametrize("host", ["a..b", "x" * 300])
def test_a_name_that_no_host_can_have_is_one_line(host):
    with pytest.raises(UserError, match=f"process 0 did not answer at {host}:4711 within 0.1 s"):
        meet(f"{host}:4711", 2, 1, seconds=0.1)


def test_of_many_missing_processes_a_few_are_named():
    with pytest.raises(UserError, match=r"not started within 0.1 s: 1, 2, .*, 16, … of 999999999$"):
        meet(f"localhost:{free_port()}", 999_999_999, 0, seconds=0.1)


def test_processes_that_were_told_different_things_stop():
    """Two processes join for real, right after they met on the same port, and compare what they were told."""
    program = (
        "import sys\n"
        "from hvq_jax.command import exit_status\n"
        "from hvq_jax.devices.cluster import check_agreement, join\n"
        "index = int(sys.argv[2])\n"
        "join(sys.argv[1], 2, index)\n"
        "for told in ({'a': 1}, {'a': 1, 'b': index}, {'a': 1, **({'c': 2} if index else {})}):\n"
        "    print('status', exit_status(lambda: check_agreement(told)), flush=True)\n"
    )
    coordinator = f"localhost:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, coordinator, str(index)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]
    for process in processes:
        output, error = process.communicate(timeout=300)
        statuses = [line for line in output.splitlines() if line.startswith("status ")]
        assert statuses == ["status 0", "status 1", "status 1"], error
        lines = [line for line in error.splitlines() if line.startswith("error: ")]
        for line, told in zip(lines, ("b=1, process 0 has 0", "c=2, process 0 has None"), strict=True):
            assert line.startswith(f"error: process 1 has {told}: start all processes with the same command")
