"""Progress bars on stderr that never interrupt the work they show."""

import contextlib
import sys
from typing import Any, TextIO

import tqdm


def progress_bar(**options: Any) -> "tqdm.tqdm[Any]":
    """Return a `tqdm` bar that ignores write errors on stderr.

    If stderr is a file on a full disk, plain tqdm raises OSError without releasing a lock that the bars of all threads
    share, and the next bar waits forever.

    Args:
        **options: arguments of `tqdm.tqdm`.
    """
    return tqdm.tqdm(file=_Forgiving(sys.stderr), **options)


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
