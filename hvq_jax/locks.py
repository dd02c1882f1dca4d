"""Locks between processes, which the operating system releases when their holder ends, even by `kill -9`."""

import os
import time
from typing import IO

_BYTE = 2**40  # Windows locks bytes, against reading and writing too: one beyond the end of any file
_SECONDS_BETWEEN_TRIES = 0.1


def lock(file: IO[bytes], *, wait: bool = False) -> None:
    """Lock an open file until it is closed.

    Args:
        file: a file that is open for writing.
        wait: wait for a process that holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
        OSError: the file system has no locks.
    """
    if os.name == "nt":
        _lock_on_windows(file, wait=wait)
    else:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def _lock_on_windows(file: IO[bytes], *, wait: bool) -> None:
    import msvcrt

    while True:
        os.lseek(file.fileno(), _BYTE, os.SEEK_SET)
        try:
            return msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except PermissionError as error:
            if not wait:
                raise BlockingIOError(error.errno, "another process holds the lock") from None
        time.sleep(_SECONDS_BETWEEN_TRIES)
