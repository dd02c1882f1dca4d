"""Atomic writing and reading of files, with one-line errors."""

import contextlib
import errno
import json
import os
import shlex
import shutil
import stat
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from io import BufferedReader, BufferedWriter
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from hvq_jax.errors import UserError
from hvq_jax.locks import lock
from hvq_jax.npz import npz_names, read_npz
from hvq_jax.schema import Array, check_arrays, check_json

T = TypeVar("T")

# What to do about a damaged file that a run makes again, and about one that it does not.
MADE_AGAIN = "delete it and run train.py again"
NOT_MADE_AGAIN = "restore it, or train again in another --workdir"

_MOST_JSON_BYTES = 2**28

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# Errors of the system at reading: none says anything about what is in the file.
_NO_DAMAGE = (
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
    errno.ESTALE,
    errno.ETIMEDOUT,
    errno.ENOTCONN,
    *([errno.EREMOTEIO] if hasattr(errno, "EREMOTEIO") else []),  # Linux has it
)


def shows_damage(error: BaseException) -> bool:
    """Return whether an error raised while a file was read, or its cause, may come from what is in the file.

    A denied permission, a failing disk, too many open files or too little memory show nothing of the kind. Libraries
    in C++ raise errors of their own kinds with the system's message in them.

    >>> shows_damage(ValueError("not a PNG")), shows_damage(RuntimeError("open() failed: Permission denied; opening a"))
    (True, False)
    """
    if isinstance(error, (MemoryError, ImportError, NameError)) or getattr(error, "errno", None) in _NO_DAMAGE:
        return False
    if any(os.strerror(number) in str(error) for number in _NO_DAMAGE):
        return False
    return error.__cause__ is None or shows_damage(error.__cause__)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a file for reading in binary; use it for every path that a user gives.

    Reading a named pipe, a socket or a device may wait forever, never end, or change something. They are not even
    opened.

    Raises:
        OSError: the file cannot be opened, or is not a regular file.
    """
    path = os.fspath(path)
    _check_regular(os.stat(path), path)
    # The file owns its descriptor from the start: a stop at any moment closes it once, and never another file's.
    file = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115 - for the caller to close
    try:
        _check_regular(os.fstat(file.fileno()), path)
    except BaseException:
        file.close()
        raise
    return file


def _open_without_waiting(path: str, flags: int) -> int:
    # The file may have been replaced by a named pipe since it was checked.
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # Windows has no named pipes among files


def _check_regular(status: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", path)


def check_regular_files(folder: str | os.PathLike[str]) -> None:
    """Raise OSError if anything below `folder` is neither a folder nor a regular file; broken links are passed over.

    Call this before a library opens the files, which would wait forever for a named pipe.
    """
    for parent, _, names in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            with contextlib.suppress(FileNotFoundError):
                _check_regular(os.stat(path), path)


def open_to_lock(path: Path) -> BufferedWriter:
    """Open a file, created if missing, to hold a lock on it or to write; raise OSError if it is not a regular file."""
    with contextlib.suppress(FileNotFoundError):
        _check_regular(os.stat(path), os.fspath(path))
    return path.open("ab")


def full_path(path: str | os.PathLike[str]) -> Path:
    """Return `path` as an absolute path, with a leading ~ expanded; raise UserError if there is no home folder."""
    expanded = os.path.expanduser(path)
    if os.fspath(expanded).startswith("~") and os.fspath(path).startswith("~"):
        raise UserError(f"{path}: there is no such home folder; write the path in full")
    return Path(os.path.abspath(expanded))


def printable(path: str | os.PathLike[str]) -> str:
    r"""Return a path, which may hold any bytes, as one line that every stream can encode as UTF-8.

    >>> printable("caf\udce9\n.png")
    'caf\\xe9\\n.png'
    """
    text = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def as_typed(path: Path) -> str:
    """Return a path as it is typed in the current folder, in quotes where a shell needs them.

    >>> as_typed(Path.cwd() / "runs" / "my run")
    "'runs/my run'"
    """
    try:
        relative = os.path.relpath(path)
    except OSError:  # the current folder was removed
        relative = ".."
    return shlex.quote(printable(path if relative.startswith("..") else relative))


def home_folder() -> Path | None:
    """Return the user's home folder; None where there is none, as in a container without HOME and a passwd entry."""
    home = os.path.expanduser("~")
    return Path(home) if os.path.isabs(home) else None


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a path to write to; it becomes `path` at the end of the block, or is removed if the block raises.

    What a killed process leaves is overwritten when `path` is next written.

    Raises UserError if the file cannot be written, or if another process is writing it.
    """
    temporary = _unfinished(path)
    with _named(path), _locked(temporary) as held:
        try:
            yield temporary
            if os.name == "nt":  # an open file cannot be renamed there
                held.close()
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


@contextlib.contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """Yield an empty folder to fill; it becomes `path`, which is missing or empty, at the end of the block.

    It is removed if the block raises. What a killed process leaves is removed when `path` is next written.

    Raises UserError if the folder cannot be written, or if another process is writing it.
    """
    temporary = _unfinished(path)
    with _named(path):
        temporary.mkdir(exist_ok=True)
        with _locked(temporary / "lock"):
            content = temporary / "content"
            try:
                if content.exists():
                    shutil.rmtree(content)
                content.mkdir()
                yield content
                os.replace(content, path)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)


def check_writable(path: Path) -> None:
    """Raise UserError if `path` cannot be written; call this before work whose result is to be written there.

    Trying is the only way to know: a file system may be read-only, and the superuser passes every check of permissions.
    """
    with _named(path):
        _unfinished(path).exists()  # raises if the name is too long
        with tempfile.TemporaryFile(dir=path.parent):
            pass


def remove_unfinished(paths: Iterable[Path]) -> None:
    """Remove what killed processes left of the files `paths`; no process may be writing them."""
    for path in paths:
        _unfinished(path).unlink(missing_ok=True)


def _unfinished(path: Path) -> Path:
    """Return where `path` is written: the same each time, so that killed processes leave no more than one."""
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise UserError, naming the path that cannot be written, for OSErrors of the block."""
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from None


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[BufferedWriter]:
    """Hold a lock on `file`, created if missing, during the block; raise OSError if another process does.

    Yields the open file. Closing it releases the lock.
    """
    with open_to_lock(file) as held:
        try:
            lock(held)
        except BlockingIOError:
            raise OSError(errno.EBUSY, "another process is writing it") from None
        except OSError:
            pass  # a file system without locks
        yield held


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path, form: type[T], *, advice: str) -> T | None:
    """Return the content of a JSON file, or None if there is none.

    Args:
        path: the file.
        form: the form of its content; see `schema.check_json`.
        advice: what to do if it is damaged, for the error.

    Raises:
        UserError: the file cannot be read, or its content has another form.
    """
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > _MOST_JSON_BYTES:
                raise ValueError(f"it has more than {_MOST_JSON_BYTES:,} bytes")
            content = parse_json(file.read())
        check_json(content, form)
        return content
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}") from None
    except OSError as error:  # nothing is known about its content
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None


def parse_json(text: bytes) -> Any:
    """Return the value of a JSON text in UTF-8; raise ValueError, with a message of one line, if it is none."""
    try:
        return json.loads(text.decode())
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def write_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz atomically."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def read_arrays(
    path: Path,
    schema: Mapping[str, Array] | None = None,
    *,
    names: Collection[str] | None = None,
    sizes: Mapping[str, int] | None = None,
    check: Callable[[dict[str, np.ndarray]], None] | None = None,
    advice: str = MADE_AGAIN,
) -> dict[str, np.ndarray]:
    """Return the arrays of an .npz.

    Args:
        path: the file.
        schema: the form of each array to return; None: all arrays, unchecked.
        names: without a schema, the names of the arrays to return, of those that there are.
        sizes: the sizes of axes that the schema names; see `schema.check_arrays`.
        check: a further check of the arrays, which raises ValueError.
        advice: what to do if the file is missing or damaged, for the error.

    Raises:
        UserError: the file is missing or cannot be read, or an array has another form.
    """
    with _array_errors_named(path, advice), open_regular(path) as file:
        arrays = read_npz(file, names if schema is None else schema)
        check_arrays(arrays, schema or {}, sizes)
        if check is not None:
            check(arrays)
        return arrays


def read_names(path: Path, *, advice: str) -> list[str]:
    """Return the names of the arrays of an .npz; arguments and errors are those of `read_arrays`."""
    with _array_errors_named(path, advice), open_regular(path) as file:
        return npz_names(file)


@contextlib.contextmanager
def _array_errors_named(path: Path, advice: str) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {advice}") from None
    except MemoryError:
        raise UserError(f"{path} cannot be read: its arrays do not fit into memory") from None
    except OSError as error:  # nothing is known about its content
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from None
