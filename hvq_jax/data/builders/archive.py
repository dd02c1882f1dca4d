"""Reading members of a published .tar.gz into memory. Nothing is unpacked, so no member can write anywhere."""

import gzip
import pathlib
import tarfile
import zlib
from collections.abc import Collection

from hvq_jax.errors import UserError

_MAX_MEMBER_BYTES = 1 << 28  # larger than any published one; a small archive can announce far more
_CHUNK_BYTES = 1 << 20


def read_members(archive: pathlib.Path, names: Collection[str]) -> dict[str, bytes]:
    """Returns the content of the members with exactly these names; all others are passed over.

    The whole archive is gone through, once, and its checksum verified.

    Raises:
        UserError: the archive cannot be read or is damaged, lacks a member, or has something else than a plain file of
            reasonable size in its place.
    """
    contents = {}
    try:
        with gzip.open(archive) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    if member.name in names:
                        contents[member.name] = _content(tar, member, archive)
            while stream.read(_CHUNK_BYTES):  # the checksum stands at the end
                pass
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise UserError(f"cannot read {archive}: {error}; copy or download it again") from error
    if missing := [name for name in names if name not in contents]:
        raise UserError(f"{archive} has no member {missing[0]}: it is not the published archive")
    return contents


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: pathlib.Path) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None  # it would follow links
    if file is None:
        raise UserError(f"{archive}: the member {member.name} is not a plain file")
    if member.size > _MAX_MEMBER_BYTES:
        raise UserError(f"{archive}: the member {member.name} has {member.size} bytes, more than any published one")
    return file.read()
