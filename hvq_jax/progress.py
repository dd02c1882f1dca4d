"""What people see of long work: lines on stdout, and progress bars on stderr.

Bars never interrupt the work they show, nor any other thread. `quietly` leaves out all but warnings.
"""

import contextlib
import contextvars
import sys
from collections.abc import Iterator
from typing import Any, TextIO

import tqdm

_name = contextvars.ContextVar("name", default="")
_quiet = contextvars.ContextVar("quiet", default=False)


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


@contextlib.contextmanager
def quietly(quiet: bool = True) -> Iterator[None]:
    """Print nothing but warnings, and show no bars, in this thread during the block; `quiet=False` changes nothing.

    >>> with quietly():
    ...     print_line("step 1")
    ...     print_warning("the codebook has collapsed")
    the codebook has collapsed
    """
    token = _quiet.set(quiet or _quiet.get())
    try:
        yield
    finally:
        _quiet.reset(token)


def is_quiet() -> bool:
    """Return whether this thread prints warnings only."""
    return _quiet.get()


def named(line: str) -> str:
    """Return `line` with the name that lines have now."""
    return _name.get() + line


def print_line(line: str) -> None:
    """Print a line, in one piece beside the lines of other threads, unless this one is quiet."""
    if not is_quiet():
        print_warning(line)


def print_warning(line: str) -> None:
    """Print a line, in one piece beside the lines of other threads, even if this one is quiet."""
    print(f"{named(line)}\n", end="", flush=True)


def duration(seconds: float) -> str:
    """Return a time in words, to a precision that suits its length.

    >>> [duration(seconds) for seconds in (0.004, 0.25, 42.4, 192, 7_500, 200_000)]
    ['4 ms', '250 ms', '42 s', '3 min 12 s', '2 h 05 min', '2 d 07 h']
    """
    if 0.0005 < seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02} h"
    if hours:
        return f"{hours} h {minutes:02} min"
    return f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


def num_bytes_in_words(count: float) -> str:
    """Return a number of bytes in words.

    >>> [num_bytes_in_words(count) for count in (1000, 21.25 * 2**20, 141 * 2**30)]
    ['1.0 KiB', '21.2 MiB', '141.0 GiB']
    """
    for unit in ("KiB", "MiB"):
        count /= 1024
        if count < 1000:
            return f"{count:.1f} {unit}"
    return f"{count / 1024:,.1f} GiB"


def progress_bar(*, announced: bool = False, **options: Any) -> "tqdm.tqdm[Any]":
    """Return a `tqdm` bar that ignores write errors on stderr.

    It is not shown while this thread is quiet, nor, unless `disable` is given, where stderr is no terminal.

    If stderr is a file on a full disk, plain tqdm raises OSError without releasing a lock that the bars of all threads
    share, and the next bar waits forever.

    Args:
        announced: print the title, `desc`, as a line on stderr where it is no terminal.
        **options: arguments of `tqdm.tqdm`.
    """
    stream = _Forgiving(sys.stderr)
    hidden = is_quiet() or options.get("disable", not stream.isatty())
    if announced and hidden and not is_quiet():
        stream.write(f"{named(options['desc'])}\n")
    return _Bar(**{**options, "file": stream, "disable": hidden})


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

    def isatty(self) -> bool:
        with contextlib.suppress(OSError):
            return self._stream.isatty()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
