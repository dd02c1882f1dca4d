"""Progress bars on stderr that never stop the work they show."""

import contextlib
import sys
from typing import Any, TextIO

import tqdm


def progress_bar(**options: Any) -> "tqdm.tqdm[Any]":
    """A `tqdm` bar with these options, to which it is nothing that stderr cannot be written to.

    Where stderr is a file on a full disk, tqdm alone raises OSError with a lock held for good that the bars of all
    threads share, and the next of them waits for ever.
    """
    return tqdm.tqdm(file=_Forgiving(sys.stderr), **options)


class _Forgiving:
    """A text stream without errors of writing."""

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
