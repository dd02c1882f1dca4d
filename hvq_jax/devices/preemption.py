"""Handling of SIGTERM, which schedulers send to reclaim a machine, and of ctrl-C: save, exit, and allow a restart."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from hvq_jax.errors import Preempted

RESUMES = "run the same command again to resume from the last checkpoint"

_SIGNALS = (signal.SIGTERM, signal.SIGINT)

Item = TypeVar("Item")


class Preemption:
    """A listener for SIGTERM and ctrl-C. They interrupt a single process at once, except in a `deferred` block.

    There, the first ctrl-C lets the block save, and the second interrupts it.

    In a cluster, SIGTERM to any process stops all of them at the same call of `requested`, which all must call equally
    often. There, JAX's coordination service receives the signal instead of Python.
    """

    def __init__(self) -> None:
        self._signalled: int | None = None  # the number of the signal
        self._failure: Exception | None = None
        self._deferred = False
        self._calls = 0

    @contextlib.contextmanager
    def noticed(self) -> Iterator["Preemption"]:
        """Listen for the signals during the block; only the main thread of a single process can."""
        alone = threading.current_thread() is threading.main_thread() and not jax.distributed.is_initialized()
        before = {number: signal.signal(number, self._receive) for number in _SIGNALS if alone}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        before, self._signalled = self._signalled, number  # first: in a destructor, what is raised here gets lost
        if number == signal.SIGINT and (before or not self._deferred):
            raise KeyboardInterrupt
        if not self._deferred:
            raise self.stop("")
        if number == signal.SIGINT:
            with contextlib.suppress(OSError):  # not `print`, which may be what the signal has interrupted
                os.write(2, b"\nsaving; press ctrl-C again to stop without\n")

    def fail(self, failure: Exception) -> None:
        """Ask to stop as SIGTERM does, in a cluster on all processes; on this one, end with `failure`."""
        self._failure = self._failure or failure
        if jax.distributed.is_initialized():
            signal.raise_signal(signal.SIGTERM)
        else:
            self._signalled = self._signalled or signal.SIGTERM

    def raise_failure(self) -> None:
        """Raise what `fail` was called with, if it was."""
        if self._failure is not None:
            raise self._failure

    def stop(self, saved: str) -> BaseException:
        """Return the exception to end with; `saved` says what was saved, if anything was."""
        if self._failure is not None:
            self._failure.add_note(f"{saved or 'stopped'}: {RESUMES}")
            return self._failure
        by_user = self._signalled == signal.SIGINT
        parts = ["interrupted" if by_user else "stopped by SIGTERM", *([saved] if saved else [])]
        return Preempted(f"{', '.join(parts)}: {RESUMES}", status=130 if by_user else 0)

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
        return self._signalled is not None

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """Yield the items, raising `Preempted` between two of them; for work that costs only time to repeat."""
        for item in items:
            if self.requested():
                raise self.stop("")
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
