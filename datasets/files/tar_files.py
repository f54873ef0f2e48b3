"""Tar archives, plain or with gzip, read forwards without extracting anything: names, and where the bytes are.

Python's tarfile takes a damaged header for the end of the archive, and follows lengths that lead backwards. Here both
are damage. Links, devices and folders are passed over.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from embodied.core.errors import UserError

BLOCK = 512
MOST_MEMBER_BYTES = 1 << 29  # one member is read into memory whole
_MOST_HEADER_BYTES = 1 << 20  # of a long name or of pax records
_WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class TarMember:
    """A regular file in an archive.

    Args:
        name: as the archive has it; never used as a path on this machine.
        start, size: where its bytes are, in the (uncompressed) archive.
    """

    name: str
    start: int
    size: int


class TarFile:
    """An opened archive. Reading in order costs one pass, also through gzip; going back in gzip starts over.

    Attributes:
        compressed: whether it is gzip.

    Raises:
        UserError: it cannot be opened; also from the methods, where it is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with self._errors():
            raw = path.open("rb")
            self.compressed = raw.read(2) == _GZIP
            raw.seek(0)
            self._raw: BinaryIO = raw
            self._file: BinaryIO = gzip.GzipFile(fileobj=raw) if self.compressed else raw  # type: ignore[assignment]
            self._size = None if self.compressed else path.stat().st_size

    def close(self) -> None:
        self._file.close()
        self._raw.close()

    def read(self, member: TarMember) -> bytes:
        """The bytes of a member."""
        if member.size > MOST_MEMBER_BYTES:
            raise UserError(f"{member.name} in {self.path} has {member.size} bytes, too many for the memory")
        return self._take(member.start, member.size)

    def members(self) -> Iterator[TarMember]:
        """The regular files, in order; only headers are read."""
        position, name, size = 0, "", None
        while header := self._header(position):
            start = position + BLOCK
            if header.type in _WITHOUT_DATA:
                position, name, size = start, "", None
                continue
            length = header.size if size is None else size
            position = self._after(header.name, start, length)
            if header.type == tarfile.GNUTYPE_LONGNAME:
                name = _text(self._small(header, start).split(b"\0")[0])
            elif header.type == tarfile.XHDTYPE:
                records = self._pax(header, start)
                name = records.get("path", name)
                size = self._number(records["size"], start) if "size" in records else None
            else:
                if header.type == tarfile.GNUTYPE_SPARSE:
                    raise self._damaged(start - BLOCK, f"{header.name} is a sparse file, which is not read")
                found = name or _text(header.name.encode("utf-8", "surrogateescape"))
                if header.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE) and not found.endswith("/"):
                    yield TarMember(found, start, length)
                if header.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
                    name, size = "", None

    def _header(self, position: int) -> tarfile.TarInfo | None:
        """The header at `position`; None at the end of the archive."""
        with self._errors():
            self._file.seek(position)
            data = self._file.read(BLOCK)
        if not data or data == bytes(BLOCK):
            return None
        try:
            header = tarfile.TarInfo.frombuf(data, "utf-8", "surrogateescape")
        except (tarfile.HeaderError, ValueError) as error:
            raise self._damaged(position, f"no header ({error})") from error
        if header.size < 0:
            raise self._damaged(position, f"a size of {header.size} bytes")
        return header

    def _after(self, name: str, start: int, size: int) -> int:
        """Where the next header is."""
        if self._size is not None and start + size > self._size:
            raise self._damaged(start, f"{name} has {size} bytes, but the file ends after {self._size - start}")
        return start + -(-size // BLOCK) * BLOCK

    def _pax(self, header: tarfile.TarInfo, start: int) -> dict[str, str]:
        records, data = {}, self._small(header, start)
        while data:
            length, _, rest = data.partition(b" ")
            count = self._number(_text(length), start)
            if not len(length) + 1 < count <= len(data) or data[count - 1 : count] != b"\n" or b"=" not in rest:
                raise self._damaged(start, "a pax record of a wrong length")
            key, _, value = data[len(length) + 1 : count - 1].partition(b"=")
            records[_text(key)] = _text(value)
            data = data[count:]
        return records

    def _number(self, text: str, position: int) -> int:
        if not (text.isascii() and text.isdecimal() and len(text) < 20):
            raise self._damaged(position, f"{text[:20]!r} is no length")
        return int(text)

    def _small(self, header: tarfile.TarInfo, start: int) -> bytes:
        if header.size > _MOST_HEADER_BYTES:
            raise self._damaged(start, f"a header of {header.size} bytes")
        return self._take(start, header.size)

    def _take(self, start: int, size: int) -> bytes:
        with self._errors():
            self._file.seek(start)
            data = self._file.read(size)
        if len(data) < size:
            raise self._damaged(start, f"{size} bytes should follow, and {len(data)} do")
        return data

    def _damaged(self, position: int, what: str) -> UserError:
        return UserError(f"{self.path} is damaged at byte {position}: {what}; get the file again")

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{self.path} cannot be read ({error}): get the file again") from error


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
