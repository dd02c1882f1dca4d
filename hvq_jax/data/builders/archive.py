"""Reader for members of a published .tar.gz. Nothing is extracted to disk, so a hostile archive cannot write files."""

import gzip
import pathlib
import tarfile
from collections.abc import Collection

from hvq_jax.errors import UserError
from hvq_jax.files import open_regular, shows_damage

# More than in any published archive; a small one could declare, or unpack to, far more.
_MOST_BYTES = 1 << 30
_MAX_MEMBER_BYTES = 1 << 28
_MOST_MEMBERS = 1000
_PIECE_BYTES = 1 << 20


def read_members(archive: pathlib.Path, names: Collection[str]) -> dict[str, bytes]:
    """Return the contents of the members with exactly these names, ignoring all others.

    The whole archive is read once and its checksum verified.

    Raises:
        UserError: the archive cannot be read or is damaged, or a member is missing, not a regular file, or too large.
    """
    contents = {}
    try:
        with open_regular(archive) as file, gzip.GzipFile(fileobj=file) as unpacked:
            stream = _Forward(unpacked)
            with tarfile.open(fileobj=stream, mode="r:") as tar:  # type: ignore[call-overload]
                for number, member in enumerate(tar):
                    if number == _MOST_MEMBERS:
                        raise UserError(
                            f"{archive} has more than {_MOST_MEMBERS:,} members: it is not the published one"
                        )
                    if member.name in names:
                        contents[member.name] = _content(tar, member, archive)
            while stream.read(_PIECE_BYTES):  # the checksum is at the end
                pass
    except (UserError, MemoryError):
        raise
    except Exception as error:  # tarfile raises ValueError, OverflowError and others for headers that make no sense
        reason = " ".join(str(error).split()) or type(error).__name__
        advice = "; copy or download it again" if shows_damage(error) else ""
        raise UserError(f"cannot read {archive}: {reason}{advice}") from error
    if missing := [name for name in names if name not in contents]:
        raise UserError(f"{archive} has no member {missing[0]}: it is not the published archive")
    return contents


class _Forward:
    """A stream that can be read forwards only, and no further than `_MOST_BYTES`.

    A size in a header may be anything. tarfile would read that many bytes into memory, or, where it is negative, read
    the same members for ever.
    """

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream = stream

    def tell(self) -> int:
        return self._stream.tell()

    def seek(self, position: int) -> int:
        if not self.tell() <= position <= _MOST_BYTES:
            raise tarfile.ReadError(f"a member ends at byte {position:,}")
        return self._stream.seek(position)

    def read(self, size: int) -> bytes:
        if self.tell() + size > _MOST_BYTES:
            raise tarfile.ReadError(f"it unpacks to more than {_MOST_BYTES:,} bytes")
        content = bytearray()  # in memory for what is there, whatever is asked for
        while piece := self._stream.read(min(size - len(content), _PIECE_BYTES)):
            content += piece
        return bytes(content)


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo, archive: pathlib.Path) -> bytes:
    file = tar.extractfile(member) if member.isreg() else None  # extractfile would follow links
    if file is None:
        raise UserError(f"{archive}: member {member.name} is not a regular file")
    if member.size > _MAX_MEMBER_BYTES:
        raise UserError(f"{archive}: member {member.name} has {member.size} bytes, more than any published member")
    return file.read()
