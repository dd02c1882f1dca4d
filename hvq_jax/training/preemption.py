"""SIGTERM, by which schedulers take a machine back: the run saves, ends with status 0, and can be started again."""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

from hvq_jax.errors import Preempted

GOES_ON = "the same command goes on from the last checkpoint"

Item = TypeVar("Item")


class Preemption:
    """Notices SIGTERM. A process on its own is interrupted at once, except in a `deferred` block.

    In a cluster the signal to any one process stops all of them at the same call of `requested`, which each must make
    equally often: JAX's coordination service receives the signal there, and Python does not.
    """

    def __init__(self) -> None:
        self._signalled = False
        self._deferred = False
        self._calls = 0

    @contextlib.contextmanager
    def noticed(self) -> Iterator["Preemption"]:
        """Listens for the signal during the block."""
        if jax.distributed.is_initialized():  # a handler of ours would displace that of the coordination service
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
            raise Preempted(f"stopped by SIGTERM: {GOES_ON}")

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Leaves it to the block to ask `requested`, at moments when it can save."""
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    def requested(self) -> bool:
        """Whether to stop now; in a cluster, equal on all processes."""
        self._calls += 1
        if jax.distributed.is_initialized():
            return multihost_utils.reached_preemption_sync_point(self._calls)
        return self._signalled

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items; raises `Preempted` between two of them. For work whose loss costs nothing but time."""
        for item in items:
            if self.requested():
                raise Preempted(f"stopped by SIGTERM: {GOES_ON}")
            yield item


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Handle SIGTERM at the end of the block where it would raise `Preempted` inside.

    For libraries that run an event loop: an exception that a signal raises between its callbacks is logged as one of
    theirs, or never heard of, and the loop waits for ever for what it has cut short.
    """
    handler = signal.getsignal(signal.SIGTERM)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return
    received = []
    signal.signal(signal.SIGTERM, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        if received:
            signal.raise_signal(signal.SIGTERM)
