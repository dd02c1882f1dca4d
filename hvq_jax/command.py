"""The start and the end of a command: output streams, ctrl-C, and one line on stderr where it fails.

This module imports only the standard library, so that a command can call `start` before its slow imports.
"""

import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from types import TracebackType

from hvq_jax.errors import Preempted, UserError
from hvq_jax.extras import install_command

_spelling: str | None = None  # how the command of this process was typed, with {} for its name; None: it is none


def start(spelling: str | None = None) -> None:
    """Prepare this process for a command; call this before importing JAX.

    `spelling` is how commands are typed here, such as "hvq-{}", for `typed`.

    Until `exit_status` runs the command, ctrl-C ends the process without a traceback. Text is escaped where the
    terminal's encoding lacks its characters. Standard streams that are closed are replaced by the null device: their
    file descriptors would otherwise go to the next files opened, and libraries would print into those. MPLBACKEND is
    dropped: figures need no backend, and that of a notebook may not be installed here.
    """
    global _spelling
    _spelling = spelling
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # receives the lowest free number, which is this one
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - until the process ends
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    os.environ.pop("MPLBACKEND", None)
    sys.excepthook = _report_settings_of_jax
    if importlib.util.find_spec("jaxlib") is None:
        print(
            f"error: {sys.executable} has no JAX: use the environment that `make quickstart` installs, "
            f"as in `.venv/bin/python train.py`, or `{install_command('train')}`",
            file=sys.stderr,
        )
        sys.exit(1)


def typed(name: str) -> str | None:
    """Return what to type for the command `name`, in the way in which this process was started; None in Python."""
    return None if _spelling is None else _spelling.format(name)


def _report_settings_of_jax(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print one line where JAX cannot read an environment variable, which it does when it is imported."""
    frame = traceback.extract_tb(trace)[-1:]
    if isinstance(error, ValueError) and frame and frame[0].filename.endswith(os.path.join("jax", "_src", "config.py")):
        print(f"error: an environment variable of JAX cannot be used: {error}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def exit_status(command: Callable[[], None], *, interrupted: str = "interrupted") -> int:
    """Run `command`; return 0, or 1 or 130 after one line on stderr where it failed or was interrupted."""
    before = signal.getsignal(signal.SIGINT)
    handled = threading.current_thread() is threading.main_thread()
    if handled:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        command()
        sys.stdout.flush()
    except Preempted as stop:
        print(stop, file=sys.stderr, flush=True)
        return stop.status
    except (UserError, OSError) as error:  # OSError: a full disk, a folder that was removed
        line = " ".join(str(error).splitlines()) or type(error).__name__  # file names and modules may hold line breaks
        print(f"error: {line}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
    except Exception as error:
        if not _out_of_memory(error):
            raise
        first = (str(error).splitlines() or [""])[0]
        print(f"error: out of memory ({first}): choose a smaller batch or model", file=sys.stderr, flush=True)
        return 1
    finally:
        if handled:
            signal.signal(signal.SIGINT, before)
    return 0


def _out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
