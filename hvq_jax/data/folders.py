"""The folder of prepared data sets."""

import os
import pathlib
import tempfile

import tensorflow_datasets as tfds

from hvq_jax.errors import UserError
from hvq_jax.files import full_path, home_folder


def data_folder(data_dir: str | os.PathLike[str] | None) -> pathlib.Path:
    """Return the folder of prepared data sets, as an absolute path.

    It is `data_dir`; `None` is TFDS's default, TFDS_DATA_DIR or ~/tensorflow_datasets, or, for a user without a home
    folder, a folder of this user in that of temporary files.

    Raises:
        UserError: there is no such home folder, or the temporary folder belongs to another user.
    """
    default = tfds.core.constants.DATA_DIR
    if data_dir or home_folder() or not default.startswith("~"):
        return full_path(data_dir or default)
    own = pathlib.Path(tempfile.gettempdir(), f"hvq_jax-{os.getuid()}")
    own.mkdir(mode=0o700, exist_ok=True)
    if own.is_symlink() or own.stat().st_uid != os.getuid():
        raise UserError(f"there is no home folder, and {own} belongs to another user: set data.data_dir=DIR")
    return own / "tensorflow_datasets"
