"""Pack the results of a study into a few files of limited size, to be copied from another machine."""

import io
import tarfile
from pathlib import Path

from hvq_jax.errors import UserError
from hvq_jax.files import whole_file

NUM_FILES = 8  # largest number of files
FILE_BYTES = 16 * 2**20  # largest size of a file


def pack(results: Path, study: Path, folder: Path) -> list[Path]:
    """Pack everything in `results`, a folder below `study`, into `folder`, and return the files written.

    The files are the parts of one tar archive. `cat FOLDER/NAME.tar.* | tar -x -C STUDY` unpacks it, where NAME is the
    name of the study. Earlier parts are replaced.

    Raises:
        UserError: the results do not fit into `NUM_FILES` files.
    """
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for path in sorted(path for path in results.rglob("*") if path.is_file() and not path.name.startswith(".")):
            tar.add(path, path.relative_to(study))
    content = archive.getvalue()
    if len(content) > NUM_FILES * FILE_BYTES:
        raise UserError(
            f"{results}: {len(content):,} bytes do not fit into {NUM_FILES} files of {FILE_BYTES:,} bytes; "
            "copy the folder itself"
        )
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob(f"{study.name}.tar.*"):
        old.unlink()
    parts = [content[start : start + FILE_BYTES] for start in range(0, len(content), FILE_BYTES)]
    files = [folder / f"{study.name}.tar.{number}" for number in range(len(parts))]
    for file, part in zip(files, parts, strict=True):
        with whole_file(file) as unfinished:
            unfinished.write_bytes(part)
    return files
