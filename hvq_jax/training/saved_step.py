"""The folder of one checkpoint: reading its state and metrics verified, and telling damage from what is unreadable.

A checkpoint is damaged only where that is proven: a file is missing or differs from its SHA-256, a leaf differs from
its digest, or a file is not in its format. Other reasons for which reading may fail prove nothing: permissions, a disk
that reports an error, too many open files, too little memory, a library that fails.

Leaves have digests beside those of the files because Orbax casts a wrong dtype and restores some damaged data silently.
Orbax is imported where it is used: neither a first step nor a finished run waits for it.
"""

import errno
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from hvq_jax.devices.preemption import uninterrupted
from hvq_jax.errors import UserError
from hvq_jax.files import check_regular_files, open_regular, shows_damage

if TYPE_CHECKING:
    import orbax.checkpoint as ocp

_STATE, _DIGESTS, _METRICS = "state", "digests", "metrics"  # the items of a checkpoint: folders that Orbax writes
_DIGESTS_FILE, _METRICS_FILE = f"{_DIGESTS}/metadata", f"{_METRICS}/metrics"
_SUMS_FILE = "SHA256SUMS"  # as `sha256sum --check` reads it
_MARKER = "_CHECKPOINT_METADATA"  # Orbax's, absent from a folder that was copied or deleted in part

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EISDIR)
# What parsing a damaged file raises: tensorstore and the JSON parser ValueError, the users of their results the others.
_FORMAT_ERRORS = (ValueError, LookupError, TypeError, AttributeError, EOFError, FileNotFoundError)


class DamagedError(Exception):
    """A checkpoint is not as it was written; the message says what is wrong with it."""


class DeletedError(Exception):
    """A checkpoint was deleted while it was read, as by a run that keeps only the newest and the best."""


def leaf_digests(tree: Any) -> dict[str, str]:
    """Return a map from the path of each leaf to "dtype shape SHA-256", for a pytree of numpy arrays."""
    return {path: _digest(np.asarray(leaf)) for path, leaf in _leaves(tree).items()}


def _leaves(tree: Any) -> dict[str, Any]:
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _digest(leaf: np.ndarray) -> str:
    sha = hashlib.sha256(np.ascontiguousarray(leaf).tobytes()).hexdigest()
    return f"{leaf.dtype} {list(leaf.shape)} {sha}"


def make_handler() -> "ocp.CompositeCheckpointHandler":
    """Return Orbax's handler of the items of a checkpoint."""
    import orbax.checkpoint as ocp

    metrics = ocp.handlers.JsonCheckpointHandler(filename=Path(_METRICS_FILE).name)
    return ocp.CompositeCheckpointHandler(_STATE, _DIGESTS, **{_METRICS: metrics})


def items(state: Any, metrics: Mapping[str, float] | None) -> "ocp.args.Composite":
    """Return the items to save of a pytree of numpy arrays and, where it was evaluated, of its metrics."""
    import orbax.checkpoint as ocp

    saved: dict[str, Any] = {_STATE: ocp.args.StandardSave(state), _DIGESTS: ocp.args.JsonSave(leaf_digests(state))}
    if metrics is not None:
        saved[_METRICS] = ocp.args.JsonSave(dict(metrics))
    return ocp.args.Composite(**saved)


def metadata(metrics: Mapping[str, float] | None) -> dict[str, Any]:
    """Return the metadata to save: a copy of the metrics, in another file, since they decide which state is used."""
    return {} if metrics is None else {_METRICS: dict(metrics)}


def write_sums(folder: Path) -> None:
    """Write the SHA-256 of each file of the items in `folder`, once Orbax has written them."""
    paths = [path for item in (_STATE, _DIGESTS, _METRICS) for path in sorted((folder / item).rglob("*"))]
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths if path.is_file()]
    (folder / _SUMS_FILE).write_text("".join(lines))


def _sha256(path: Path) -> str:
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def _read_if_there(path: Path) -> bytes | None:
    try:
        return _read(path)
    except OSError as error:
        if error.errno not in _ABSENT:
            raise
        return None


def is_complete(folder: Path) -> bool:
    """Return whether `folder` is a whole checkpoint, by its marker; raise UserError if that cannot be seen."""
    try:
        (folder / _MARKER).stat()
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise _unreadable(folder, error) from error
    return True


def read_state(folder: Path, like: Any) -> Any:
    """Return the state as it was saved, in numpy arrays, with the structure, shapes and dtypes of `like`.

    Raises:
        DamagedError: the checkpoint is damaged.
        DeletedError: the checkpoint was deleted in the meantime.
        UserError: the checkpoint is of another model, or cannot be read for a reason that is no damage.
    """
    failure: Exception | None = None
    for _ in range(2):  # what fails for a moment succeeds the second time
        try:
            with uninterrupted():
                return _read_state(folder, like)
        except Exception as error:  # Orbax and tensorstore raise many kinds of errors
            failure = error
        has_sums = _check_files(folder)
    if isinstance(failure, (UserError, DamagedError)):
        raise failure
    if isinstance(failure, _FORMAT_ERRORS) and shows_damage(failure) and not has_sums:
        raise DamagedError(first_line(failure)) from failure
    raise _unreadable(folder, failure) from failure


def _read_state(folder: Path, like: Any) -> Any:
    import orbax.checkpoint as ocp

    check_regular_files(folder)
    digests = json.loads(_read(folder / _DIGESTS_FILE))
    found = {path: digest.rsplit(" ", 1)[0] for path, digest in digests.items()}
    expected = {path: f"{leaf.dtype} {list(leaf.shape)}" for path, leaf in _leaves(like).items()}
    for path in sorted({*found, *expected}):
        if found.get(path) != expected.get(path):
            raise UserError(
                f"checkpoint {folder} is of another model: {path} is {found.get(path, 'absent')} there, "
                f"{expected.get(path, 'absent')} here"
            )
    target = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    handler = ocp.StandardCheckpointHandler()
    try:
        state = jax.device_get(handler.restore(folder / _STATE, args=ocp.args.StandardRestore(target)))
    finally:
        handler.close()
    actual = leaf_digests(state)
    if wrong := sorted(path for path in digests if actual[path] != digests[path]):
        raise DamagedError(f"the data differ from what was saved in {', '.join(wrong[:3])}")
    return state


def is_intact(folder: Path) -> bool:
    """Return whether all files of a checkpoint are as they were written; False where their sums cannot tell.

    This takes milliseconds, and neither Orbax nor the model.
    """
    try:
        check_regular_files(folder)
        sums = _read_sums(folder)
        return sums is not None and not _damage(folder, sums)
    except (OSError, UserError):
        return False


def read_metric(folder: Path, name: str) -> float | None:
    """Return the metric `name` of a checkpoint, None if it was saved without metrics.

    Raises:
        DamagedError: the metrics are damaged, or lack a finite number of that name; the state may well be whole.
        DeletedError: the checkpoint was deleted in the meantime.
        UserError: they cannot be read for another reason.
    """
    try:
        return _read_metric(folder, name)
    except OSError as error:
        if _is_deleted(folder):
            raise DeletedError(folder) from error
        raise _unreadable(folder, error) from error


def _read_metric(folder: Path, name: str) -> float | None:
    content, expected = _read_if_there(folder / _METRICS_FILE), (_read_sums(folder) or {}).get(_METRICS_FILE)
    if content is None and _is_deleted(folder):
        raise DeletedError(folder)
    if expected is not None and (content is None or _sum(content) != expected):
        content = _copied_metrics(folder)
        if content is None or _sum(content) != expected:
            raise DamagedError(f"{_METRICS_FILE} is not as it was written")
    if content is None:
        if os.path.lexists(folder / _METRICS):
            raise DamagedError(f"{_METRICS_FILE} is missing")
        return None
    try:
        value = float(json.loads(content)[name])
    except (ValueError, LookupError, TypeError) as error:
        raise DamagedError(f"{_METRICS_FILE} has no number {name}") from error
    if not math.isfinite(value):
        raise DamagedError(f"{_METRICS_FILE} has {name} {value}")
    return value


def _copied_metrics(folder: Path) -> bytes | None:
    """Return what the file of metrics should contain, by the copy that `metadata` makes; None if that is damaged."""
    try:
        return json.dumps(json.loads(_read(folder / _MARKER))["custom_metadata"][_METRICS]).encode()
    except (ValueError, LookupError, TypeError):
        return None


def _check_files(folder: Path) -> bool:
    """Read all files to their ends and compare them with their sums; return whether they have sums.

    Raises DamagedError, DeletedError, or UserError where one cannot be read.
    """
    try:
        sums = _read_sums(folder)
        problem = _damage(folder, sums)
    except OSError as error:
        if _is_deleted(folder):
            raise DeletedError(folder) from error
        raise _unreadable(folder, error) from error
    if _is_deleted(folder):
        raise DeletedError(folder)
    if problem:
        raise DamagedError(problem)
    return sums is not None


def _damage(folder: Path, sums: Mapping[str, str] | None) -> str:
    """Return what is wrong with the first damaged file, "" if nothing is."""
    if sums is None:
        for parent, _, names in os.walk(folder, onerror=_raise):
            for name in names:
                _sha256(Path(parent, name))
        return ""
    for name, expected in sums.items():
        try:
            found = _sha256(folder / name)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return f"{name} is missing"
        if found != expected:
            return f"{name} is not as it was written"
    return ""


def _raise(error: OSError) -> None:
    raise error


def _read_sums(folder: Path) -> dict[str, str] | None:
    """Return the SHA-256 of each file, None if they were not stored or are damaged."""
    lines = (_read_if_there(folder / _SUMS_FILE) or b"").decode("ascii", "replace").splitlines()
    matches = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines]
    return {match[2]: match[1] for match in matches if match} if matches and all(matches) else None


def _is_deleted(folder: Path) -> bool:
    try:
        folder.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _unreadable(folder: Path, error: Exception | None) -> UserError:
    named = isinstance(error, OSError) and error.strerror and error.filename
    reason = f"{error.strerror}: {error.filename}" if named else first_line(error)  # type: ignore[union-attr]
    return UserError(f"checkpoint {folder} cannot be read ({reason}): it was left as it is; fix that and try again")


def first_line(error: Exception | None) -> str:
    """Return the kind of an error and the start of its message."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:100]}"
