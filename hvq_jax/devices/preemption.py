"""Handling of SIGTERM, which schedulers send to reclaim a machine: save, exit with status 0, and allow a restart."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from hvq_jax.errors import Preempted

RESUMES = "run the same command again to resume from the last checkpoint"

Item = TypeVar("Item")


class Preemption:
    """A listener for SIGTERM. The signal interrupts a single process at once, except in a `deferred` block.

    In a cluster, a signal to any process stops all of them at the same call of `requested`, which all must call equally
    often. There, JAX's coordination service receives the signal instead of Python.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._deferred = False
        self._calls = 0

    @contextlib.contextmanager
    def noticed(self) -> Iterator["Preemption"]:
        """Listen for the signal during the block."""
        if jax.distributed.is_initialized():  # our handler would replace that of the coordination service
            yield self
            return
        before = signal.signal(signal.SIGTERM, self._receive)
        try:
            yield self
        finally:
            signal.signal(signal.SIGTERM, before)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True
        if not self._deferred:
            raise Preempted(f"stopped by SIGTERM: {RESUMES}")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let the block poll `requested` when it can save, instead of interrupting it."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def requested(self) -> bool:
        """Return whether to stop now; in a cluster, the same on all processes."""
        self._calls += 1
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._signalled

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, raising `Preempted` between two of them; for work that costs only time to repeat."""
        for item in items:
            if self.requested():
                raise Preempted(f"stopped by SIGTERM: {RESUMES}")
            yield item


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Handle SIGTERM and ctrl-C at the end of the block where they would raise an exception inside.

    For libraries that run an event loop: an exception that a signal raises between its callbacks is logged as one of
    theirs, or never heard of, and the loop waits for ever for what it has cut short.
    """
    with _postponed(signal.SIGTERM), _postponed(signal.SIGINT):
        yield


@contextlib.contextmanager
def _postponed(number: signal.Signals) -> Iterator[None]:
    handler = signal.getsignal(number)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    signal.signal(number, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(number, handler)
        if received:
            signal.raise_signal(number)
