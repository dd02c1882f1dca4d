"""Preparing a data set once, whole or not at all, however many processes ask for it."""

import contextlib
import fcntl
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from hvq_jax.data.builders import ImageBuilder
from hvq_jax.errors import UserError


def prepare(
    builder_class: type[ImageBuilder],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    image_size: int = 0,
    channels: int = 0,
    skip_corrupt: bool = False,
) -> tfds.core.DatasetBuilder:
    """Returns a builder whose data set is on disk, preparing it if it is not.

    TFDS writes into `incomplete.*` and renames at the end. Processes take turns by a lock that all copies of a data set
    share, so the second finds the first one's work; what a killed process left of any copy is removed under the same
    lock.

    Args:
        builder_class: which data set.
        data_dir: where prepared data sets live; `None` is TFDS's default folder.
        manual_dir: folder of the published files; `None` downloads them. Not looked at when a published data set is
            prepared already.
        image_size: passed to builders that have it in their `OPTIONS`, as the following are; the others store
            images as they were published.
        channels: likewise.
        skip_corrupt: likewise.

    Raises:
        UserError: a file is missing or damaged, a download failed, `data_dir` is not writable or full, or the
            description of a data set that was prepared before is damaged.
    """
    options: dict[str, Any] = {"image_size": image_size, "channels": channels, "skip_corrupt": skip_corrupt}
    taken = {name: options[name] for name in builder_class.OPTIONS}
    try:
        builder = builder_class(data_dir=data_dir, manual_dir=manual_dir, **taken)
    except UserError:
        raise
    except Exception as error:  # TFDS has no class for what it finds wrong in a description
        where = f"the description of {builder_class.name} in {data_dir or tfds.core.constants.DATA_DIR}"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(f"{where} is damaged ({reason}): delete its folder and prepare it again") from error
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        if not builder.info.splits:
            raise UserError(f"{folder} has lost the description of its data set: delete it and prepare it again")
        return builder
    try:
        copies = pathlib.Path(builder.data_dir_root, builder.name)
        with _exclusive(copies / "prepare.lock"):
            for leftover in copies.rglob(f"incomplete.*_{folder.name}"):
                shutil.rmtree(leftover)
            _download_and_prepare(builder)
    except OSError as error:
        raise UserError(
            f"cannot prepare {builder.name} in {folder.parent} ({error}): name a folder with space "
            "that you may write to with --config.data.data_dir=DIR"
        ) from error
    # Read from the description on disk, whichever process wrote it.
    return tfds.builder_from_directory(folder)


def _download_and_prepare(builder: ImageBuilder) -> None:
    """Prepares the data set, unless another process has done so meanwhile."""
    # TFDS has several progress bars and messages; the builder shows one line a split.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None):
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


@contextlib.contextmanager
def _exclusive(path: pathlib.Path) -> Iterator[None]:
    """Holds the lock on `path`; the system frees it even if this process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that prepares {path.parent}", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
