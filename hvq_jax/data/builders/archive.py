"""Reader for members of a published .tar.gz. Nothing is extracted to disk, so a hostile archive cannot write files."""

import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Collection

from hvq_jax.errors import UserError

_MAX_MEMBER_BYTES = 1 << 28  # more than any published member; a small archive could declare a huge one
_CHUNK_BYTES = 1 << 20


def read_members(archive: pathlib.Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the members with exactly these names, ignoring all others.

    The whole archive is read once and its checksum verified.

    Raises:
        UserError: the archive cannot be read or is damaged, or a member is missing, not a regular file, or too large.
    """
    contents = {}
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    if member.name in names:
                        contents[member.name] = _content(tar, member, archive)
            while stream.read(_CHUNK_BYTES):  # the checksum is at the end
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {archive}: {error}; copy or download it again") from error
    if missing := [name for name in names if name not in contents]:
        raise UserError(f"{archive} has no member {missing[0]}: it is not the published archive")
    return contents


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: pathlib.Path) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None  # extractfile would follow links
    if file is None:
        raise UserError(f"{archive}: member {member.name} is not a regular file")
    if member.size > _MAX_MEMBER_BYTES:
        raise UserError(f"{archive}: member {member.name} has {member.size} bytes, more than any published member")
    return file.read()
