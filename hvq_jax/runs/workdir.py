"""A run's folder: used by one run at a time, with one configuration and in one format."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from io import BufferedWriter
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

from hvq_jax.errors import UserError
from hvq_jax.files import NOT_MADE_AGAIN, full_path, open_to_lock, read_json, write_json
from hvq_jax.layout import CHECKPOINTS, CONFIG, DATASET, FORMAT, FORMAT_FILE
from hvq_jax.locks import lock
from hvq_jax.runs.options import RunOptions, from_dict, stored_values, with_added
from hvq_jax.schema import Range

_Size = Annotated[int, Range(1, 2**16)]


class FormatFile(TypedDict):
    """The content of `format.json`."""

    format: Annotated[int, Range(1, 2**31 - 1)]


class Description(TypedDict):
    """The content of `dataset.json`: the data that the run was trained on, images or one's own latents."""

    name: str
    image_shape: NotRequired[tuple[_Size, _Size, _Size]]  # (H, W, C)
    latent_shape: NotRequired[tuple[_Size, _Size]]  # (h, w)
    class_names: list[str]
    fingerprint: str
    digest: str  # of the others


def write_format(workdir: Path) -> None:
    """Write the format version of the run's files."""
    write_json(workdir / FORMAT_FILE, {"format": FORMAT})


def check_format(workdir: Path) -> None:
    """Raise UserError if `workdir` holds a run in a format that this version does not read."""
    if not (workdir / CONFIG).exists():
        return
    content = read_json(workdir / FORMAT_FILE, FormatFile, advice=NOT_MADE_AGAIN)
    found = 1 if content is None else content["format"]
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
        file = _open_lock(path)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: not writable ({error.strerror}); choose another folder") from None
    with file:
        try:
            lock(file)
            if not os.path.samestat(os.fstat(file.fileno()), os.stat(path / _LOCK)):
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


def _open_lock(path: Path) -> BufferedWriter:
    path.mkdir(parents=True, exist_ok=True)
    return open_to_lock(path / _LOCK)


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
    """Raise UserError, naming the keys, if `workdir` was trained with values that differ from `config`.

    Keys that equal or lie below one of `free` (dotted) may change.
    """
    old, new = flatten(load_config(workdir)), flatten(config)
    changed = [
        f"{key} ({old.get(key)} there, {new.get(key)} now)"
        for key in sorted({*old, *new})
        if old.get(key) != new.get(key) and not any(key == name or key.startswith(f"{name}.") for name in free)
    ]
    if changed:
        raise UserError(
            f"{workdir} was written with another config: {', '.join(changed)}, which cannot change in a run that "
            f"exists; use its values, or another --workdir with --config.init_from={workdir} for its weights"
        )


def load_config(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the config of a run as nested dicts, without checking that its options fit together.

    Raises:
        UserError: there is no run, it is in another format, or an option is missing, unknown or out of range.
    """
    path = Path(workdir) / CONFIG
    check_format(Path(workdir))
    config = read_json(path, dict[str, object], advice=NOT_MADE_AGAIN)
    if config is None:
        lost = f": {NOT_MADE_AGAIN}" if (Path(workdir) / CHECKPOINTS).exists() else ""
        raise UserError(f"no run in {workdir}: {path} does not exist{lost}")
    with config_named(workdir):
        return stored_values(with_added(config))


def load_options(workdir: str | os.PathLike[str]) -> RunOptions:
    """Return the options of a run; raise UserError as `load_config` does, or if they do not fit together."""
    config = load_config(workdir)
    with config_named(workdir):
        return from_dict(config)


@contextlib.contextmanager
def config_named(workdir: str | os.PathLike[str]) -> Iterator[None]:
    """Name the run's config.json in errors about its options that are raised in the block."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{Path(workdir) / CONFIG} cannot be used ({error}): {NOT_MADE_AGAIN}") from None


def write_description(workdir: Path, description: dict[str, Any]) -> None:
    """Write the description of the run's data."""
    write_json(workdir / DATASET, {**description, "digest": _digest(description)})


def read_description(workdir: Path) -> dict[str, Any]:
    """Return the description of the run's data, without its digest; raise UserError if it is missing or damaged."""
    path = workdir / DATASET
    content = read_json(path, Description, advice=NOT_MADE_AGAIN)
    if content is None:
        raise UserError(f"no run in {workdir}: {path} does not exist: {NOT_MADE_AGAIN}")
    found: dict[str, Any] = dict(content)
    digest = found.pop("digest")
    problem = ""
    if ("image_shape" in found) == ("latent_shape" in found):
        problem = "it must have either image_shape or latent_shape"
    elif digest != _digest(found):
        problem = "it is not as it was written"
    if problem:
        raise UserError(f"{path} cannot be used ({problem}): {NOT_MADE_AGAIN}")
    return found


def _digest(description: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()
