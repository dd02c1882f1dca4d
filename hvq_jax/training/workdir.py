"""The folder of a run: locked by one run at a time, with one fixed configuration, and with files written atomically."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvq_jax.errors import UserError

CONFIG = "config.json"


@contextlib.contextmanager
def locked(workdir: str | os.PathLike[str]) -> Iterator[Path]:
    """Create `workdir` if necessary, lock it against other runs during the block, and yield its absolute path."""
    path = Path(os.path.abspath(workdir))
    try:
        path.mkdir(parents=True, exist_ok=True)
        lock = open(path / ".lock", "a")  # noqa: SIM115 - held for the whole run
    except OSError as error:
        raise UserError(f"--workdir={workdir}: not writable ({error.strerror}); choose another folder") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise UserError(
                f"--workdir={workdir}: in use by another run; wait for it or choose another folder"
            ) from None
        yield path


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` after the block, or removed on failure, which is a UserError."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {error.strerror}") from None


def write_text(path: Path, text: str) -> None:
    """Write a file atomically."""
    with whole_file(path) as temporary:
        temporary.write_text(text)


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to one dict with dotted keys; tuples become lists, as in JSON."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = list(value) if isinstance(value, tuple) else value
    return flat


def check_config(workdir: Path, config: dict[str, Any], *, free: tuple[str, ...]) -> None:
    """Check that `config` equals the one that `workdir` was written with, if it exists.

    Args:
        workdir: folder of the run.
        config: nested dicts.
        free: dotted keys that may change between runs in one workdir, with all keys below them.

    Raises:
        UserError: other keys differ; the message names them.
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write `content` as indented JSON, atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Return the content of a JSON file, {} if it does not exist; raise UserError if it is damaged."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def load_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the config of a run as nested dicts; raise UserError if there is no run."""
    config = read_json(Path(workdir) / CONFIG)
    if not config:
        raise UserError(f"no run in {workdir}: {Path(workdir) / CONFIG} does not exist")
    return config
