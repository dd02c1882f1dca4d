"""Preparation of a data set: once and atomically, no matter how many processes request it."""

import contextlib
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from hvq_jax.data.builders.base import ImageBuilder
from hvq_jax.data.folders import data_folder
from hvq_jax.data.streamed import damage_named
from hvq_jax.errors import UserError
from hvq_jax.files import check_regular_files, open_to_lock
from hvq_jax.locks import lock


def prepare(
    builder_class: type[ImageBuilder],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    manual_dir: str | os.PathLike[str] | None = None,
    **options: Any,
) -> ImageBuilder:
    """Return a builder whose data set is on disk, preparing the data set first if necessary.

    TFDS writes into `incomplete.*` and renames it at the end. All copies of a data set share a lock, so that a second
    process waits and then finds the work of the first. Files left behind by a killed process are removed under the
    same lock.

    Args:
        builder_class: the data set.
        data_dir: folder of prepared data sets; `None` for the default of `data_folder`.
        manual_dir: folder of the published files; `None` to download them. Ignored if a published data set has
            already been prepared.
        **options: passed on to builders that list them in their `OPTIONS`; the others store images as published.

    Raises:
        UserError: a file is missing or damaged, a download failed, `data_dir` is not writable or full, or the
            description of a data set prepared earlier is damaged.
    """
    taken = {name: value for name, value in options.items() if name in builder_class.OPTIONS}
    data_dir = data_folder(data_dir)
    with damage_named(f"the description of {builder_class.name} in {data_dir}"):
        check_regular_files(data_dir / builder_class.name)
        builder = builder_class(data_dir=data_dir, manual_dir=manual_dir, **taken)
    folder = pathlib.Path(builder.data_path)
    if folder.exists():
        if not builder.info.splits:
            raise UserError(f"{folder} lacks the description of its data set: delete it and prepare it again")
        return builder
    try:
        copies = pathlib.Path(builder.data_dir_root, builder.name)
        with _exclusive(copies / "prepare.lock"):
            for leftover in copies.rglob(f"incomplete.*_{folder.name}"):
                shutil.rmtree(leftover)
            _download_and_prepare(builder)
    except OSError as error:
        raise UserError(
            f"cannot prepare {builder.name} in {folder.parent} ({error}): set data.data_dir=DIR to a writable "
            "folder with enough space"
        ) from error
    if not builder.info.splits:  # another process has written it
        builder.info.read_from_directory(folder)
    return builder


def _download_and_prepare(builder: ImageBuilder) -> None:
    """Prepare the data set unless another process has done so in the meantime."""
    # Hide the progress bars and messages of TFDS: the builder shows one line per split.
    tfds.disable_progress_bar()
    with contextlib.redirect_stdout(None), _owners_without_name():
        builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


@contextlib.contextmanager
def _owners_without_name() -> Iterator[None]:
    """Let users and groups without a name, as in a container, own files: TFDS looks up the owner of each it writes."""
    if os.name == "nt":  # where TFDS does not
        yield
        return
    import grp
    import pwd

    def user(number: int) -> pwd.struct_passwd:
        try:
            return find_user(number)
        except KeyError:
            return pwd.struct_passwd((str(number), "x", number, number, "", "/", ""))

    def group(number: int) -> grp.struct_group:
        try:
            return find_group(number)
        except KeyError:
            return grp.struct_group((str(number), "x", number, []))

    find_user, find_group = pwd.getpwuid, grp.getgrgid
    pwd.getpwuid, grp.getgrgid = user, group  # type: ignore[assignment]
    try:
        yield
    finally:
        pwd.getpwuid, grp.getgrgid = find_user, find_group


@contextlib.contextmanager
def _exclusive(path: pathlib.Path) -> Iterator[None]:
    """Hold the lock on `path`; the operating system releases it even if this process is killed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_to_lock(path) as file:
        try:
            lock(file)
        except BlockingIOError:
            print(f"waiting for another process to prepare {path.parent}", file=sys.stderr)
            lock(file, wait=True)
        yield
