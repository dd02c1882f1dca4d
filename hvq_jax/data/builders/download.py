"""Published files: taken from a folder the user names, or downloaded and checked."""

import dataclasses
import errno
import hashlib
import http.client
import pathlib
import urllib.request

from hvq_jax.errors import UserError
from hvq_jax.progress import progress_bar

_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


@dataclasses.dataclass(frozen=True)
class PublishedFile:
    """A file as its authors published it."""

    url: str
    sha256: str

    @property
    def name(self) -> str:
        """The file's name: the last part of its URL."""
        return self.url.rsplit("/", 1)[-1]


def find_file(folder: pathlib.Path, *names: str) -> pathlib.Path:
    """Returns the first of `names` that exists in `folder`.

    Raises:
        UserError: the folder does not exist or has none of them.
    """
    if not folder.is_dir():
        raise UserError(f"the folder of --config.data.manual_dir={folder} does not exist")
    for name in names:
        if (folder / name).exists():
            return folder / name
    raise UserError(f"{' or '.join(names)} is missing in --config.data.manual_dir={folder}")


def download(file: PublishedFile, folder: pathlib.Path) -> pathlib.Path:
    """Downloads a file into `folder` unless it is there already, and checks its SHA-256.

    The file takes its name only when it is complete and correct. One process at a time may
    download into a folder: the caller holds a lock.

    Raises:
        UserError: the download failed or the file is not the published one.
        OSError: the folder cannot be written to, or its disk is full.
    """
    target = folder / file.name
    if target.exists():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{file.name}.partial"
    advice = "download it yourself and name its folder with --config.data.manual_dir=DIR"
    try:
        digest = _fetch(file, partial)
    except (OSError, http.client.HTTPException) as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        raise UserError(f"could not download {file.url} ({error}): {advice}") from error
    if digest != file.sha256:
        partial.unlink()
        raise UserError(f"{file.url} is not the published file (SHA-256 {digest}, expected {file.sha256}): {advice}")
    return partial.replace(target)


def _fetch(file: PublishedFile, path: pathlib.Path) -> str:
    """Copies the URL's bytes into `path` and returns their SHA-256."""
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(file.url, timeout=_TIMEOUT_SECONDS) as response,
        path.open("wb") as output,
        progress_bar(desc=f"Downloading {file.name}", unit="B", unit_scale=True) as progress,
    ):
        progress.total = int(response.headers.get("Content-Length", 0)) or None
        while chunk := response.read(_CHUNK_BYTES):
            output.write(chunk)
            digest.update(chunk)
            progress.update(len(chunk))
    return digest.hexdigest()
