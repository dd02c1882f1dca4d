"""Lines on stdout, and progress bars on stderr that never interrupt the work they show, nor any other thread."""

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import tqdm

_name = contextvars.ContextVar("name", default="")


@contextlib.contextmanager
def lines_named(name: str) -> Iterator[None]:
    """Start the lines that this thread prints during the block, and the titles of its bars, with `name`.

    >>> with lines_named("a"):
    ...     print_line("step 1")
    a: step 1
    """
    token = _name.set(f"{name}: ")
    try:
        yield
    finally:
        _name.reset(token)


def named(line: str) -> str:
    """Return `line` with the name that lines have now."""
    return _name.get() + line


def print_line(line: str) -> None:
    """Print a line, in one piece beside the lines of other threads."""
    print(f"{named(line)}\n", end="", flush=True)


def progress_bar(**options: Any) -> "tqdm.tqdm[Any]":
    """Return a `tqdm` bar that ignores write errors on stderr.

    If stderr is a file on a full disk, plain tqdm raises OSError without releasing a lock that the bars of all threads
    share, and the next bar waits forever.

    Args:
        **options: arguments of `tqdm.tqdm`.
    """
    return _Bar(file=_Forgiving(sys.stderr), **options)


class _Bar(tqdm.tqdm):
    """A `tqdm` bar that takes no lock when it is garbage-collected and starts no thread.

    tqdm starts its monitor thread with the lock of all bars held. Where that thread collects a bar of tqdm's own kind
    before it reports that it runs, the bar waits for the lock and its holder for the thread. Whoever opens a bar closes
    it, so there is nothing left to do here.
    """

    monitor_interval = 0

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"miniters": 1, **options})  # check the clock at every update, as the monitor would

    def __del__(self) -> None: ...


class _Forgiving:
    """A text stream that ignores write errors."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
