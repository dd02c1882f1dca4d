"""Published files: found in a folder given by the user, or downloaded and verified."""

import dataclasses
import errno
import hashlib
import http.client
import pathlib
import re
import urllib.request

from hvq_jax.errors import ArgumentError, UserError
from hvq_jax.files import whole_file
from hvq_jax.progress import progress_bar

_CHUNK_BYTES = 1 << 20
_MOST_BYTES = 1 << 30  # more than any published file; a server could send without end
_TIMEOUT_SECONDS = 30
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file as its authors published it."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """File name: the last part of the URL."""
        return self.url.rsplit("/", 1)[-1]


def find_file(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """Return the path of the first of `names` that exists in `folder`.

    Raises:
        UserError: the folder does not exist or contains none of them.
    """
    if not folder.is_dir():
        raise ArgumentError(f"manual_dir={folder}", "the folder does not exist")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise ArgumentError(f"manual_dir={folder}", f"{' or '.join(names)} is missing")


def download(file: PublishedFile, folder: pathlib.Path) -> pathlib.Path:
    """Download a file into `folder` unless it is already there, and verify its SHA-256.

    The file gets its name only once it is complete and correct.

    Raises:
        UserError: the download failed, the file is not the published one, or it cannot be written.
        OSError: the folder cannot be made.
    """
    target = folder / file.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    advice = "download it yourself and set data.manual_dir=DIR to its folder"
    with whole_file(target) as partial:
        try:
            digest = _fetch(file, partial)
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
                room = "set data.data_dir=DIR to a writable folder with enough space"
                raise UserError(f"cannot write {target} ({error.strerror}): {room}") from error
            raise UserError(f"could not download {file.url} ({error}): {advice}") from error
        if digest != file.sha256:
            raise UserError(
                f"{file.url} is not the published file (SHA-256 {digest}, expected {file.sha256}): {advice}"
            )
    return target


def _fetch(file: PublishedFile, path: pathlib.Path) -> str:
    """Download the URL to `path` and return its SHA-256."""
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response,
        path.open("wb") as output,
        progress_bar(announced=True, desc=f"Downloading {file.name}", unit="B", unit_scale=True) as progress,
    ):
        length = str(response.headers.get("Content-Length", ""))
        progress.total = int(length) if re.fullmatch(r"[0-9]{1,18}", length) else None
        while chunk := response.read(_CHUNK_BYTES):
            output.write(chunk)
            digest.update(chunk)
            progress.update(len(chunk))
            if output.tell() > _MOST_BYTES:
                raise http.client.HTTPException(f"more than {_MOST_BYTES:,} bytes, more than any published file")
    return digest.hexdigest()
