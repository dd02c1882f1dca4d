"""A run's folder: used by one run at a time, with one configuration and in one format."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from hvq_jax.errors import UserError
from hvq_jax.files import full_path, read_json, write_json
from hvq_jax.layout import CONFIG, FORMAT, FORMAT_FILE


def write_format(workdir: Path) -> None:
    """Write the format version of the run's files."""
    write_json(workdir / FORMAT_FILE, {"format": FORMAT})


def check_format(workdir: Path) -> None:
    """Raise UserError if `workdir` holds a run in a format that this version does not read."""
    if not (workdir / CONFIG).exists():
        return
    found = read_json(workdir / FORMAT_FILE).get("format", 1)
    if found != FORMAT:
        raise UserError(
            f"{workdir} was written by another version of hvq_jax (format {found}, this one reads {FORMAT}): use that "
            "version, or train again in another --workdir"
        )


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield the absolute path of `workdir`, created if missing and locked against other runs during the block.

    Where the block leaves nothing in the folder, as when a start is refused, neither the lock nor a new folder remains.
    """
    path = full_path(workdir)
    existed = path.exists()
    try:
        lock = _open_lock(path)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: not writable ({error.strerror}); choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.fstat(lock.fileno()), os.stat(path / _LOCK)):
                raise FileNotFoundError  # removed since it was opened, by a run that was just refused
        except OSError:
            raise UserError(
                f"--workdir={workdir}: in use by another run; wait for it or choose another folder"
            ) from None
        try:
            yield path
        finally:
            with contextlib.suppress(OSError):
                if os.listdir(path) == [_LOCK]:
                    (path / _LOCK).unlink()
                    if not existed:
                        path.rmdir()


_LOCK = ".lock"


def _open_lock(path: Path) -> TextIO:
    path.mkdir(parents=True, exist_ok=True)
    return open(path / _LOCK, "a")


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested dicts as one dict with dotted keys; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def check_config(workdir: Path, config: dict[str, Any], *, free: tuple[str, ...]) -> None:
    """Raise UserError, naming the keys, if `workdir` was written with values that differ from `config`.

    Keys that equal or lie below one of `free` (dotted) may change when a run is resumed.
    """
    if not (workdir / CONFIG).exists():
        return
    old, new = flatten(load_config(workdir)), flatten(config)
    changed = [
        f"{key} ({old.get(key)} there, {new.get(key)} now)"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]
    if changed:
        raise UserError(
            f"{workdir} was written with another config: {', '.join(changed)}; use its values or another --workdir"
        )


def load_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the config of a run as nested dicts; raise UserError if there is none, or one in another format."""
    check_format(Path(workdir))
    config = read_json(Path(workdir) / CONFIG)
    if not config:
        raise UserError(f"no run in {workdir}: {Path(workdir) / CONFIG} does not exist")
    return config
