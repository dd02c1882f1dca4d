"""Preparing a data set once, whole or not at all, however many processes ask for it."""

import contextlib
import fcntl
import os
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow_datasets as tfds

from hvq_jax.data.builders import ImageBuilder
from hvq_jax.errors import UserError


def prepare(
    builder_class: type[ImageBuilder],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
) -> ImageBuilder:
    """Returns a builder whose data set is on disk, preparing it if it is not.

    TFDS writes into `incomplete.*` and renames at the end. Processes take turns by a lock
    beside the data set's folder, so the second finds the first one's work; what a killed process
    left behind is removed under the same lock.

    Args:
        builder_class: which data set.
        data_dir: where prepared data sets live; `None` is TFDS's default folder.
        manual_dir: folder of the published files; `None` downloads them. Not looked at when the
            data set is prepared already.

    Raises:
        UserError: a file is missing or damaged, a download failed, or `data_dir` is not writable.
    """
    builder = builder_class(data_dir=data_dir, manual_dir=manual_dir)
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        return builder
    try:
        with _exclusive(folder.with_name(f"{folder.name}.lock")):
            for leftover in folder.parent.glob(f"incomplete.*_{folder.name}"):
                shutil.rmtree(leftover)
            _download_and_prepare(builder)
    except OSError as error:
        raise UserError(
            f"cannot prepare {builder.name} in {folder.parent} ({error}): name a folder with space "
            "that you may write to with --config.data.data_dir=DIR"
        ) from error
    # A new builder reads the description on disk, whichever process wrote it.
    return builder_class(data_dir=data_dir, manual_dir=manual_dir)


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
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
