"""An episode store in one .zip file, read in place; and packing one.

The frames are compressed already, so `pack` stores them as they are, and any part of a file can be read where it lies.
Reads name their position (`pread`), so that forked processes share the open file without getting in each other's way.
"""

from __future__ import annotations

import asyncio
import io
import os
import struct
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, OffsetByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype

from embodied.core.errors import UserError
from embodied.datasets.storage.disk import disk_errors

_LARGEST_DIRECTORY = 64 << 20  # bytes of the list of files, about a million of them
_LARGEST_DEFLATED = 256 << 20  # bytes: such a file is unpacked in memory
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 1


class ZipStorage:
    """A .zip file that is only read: files in it that are stored in place, deflated ones whole.

    A zip made of the folder itself (`zip -r demos.zip demos`) works too.
    """

    writable = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.location = str(path)

    def zarr_store(self, *, writable: bool) -> Store:
        if writable:
            raise self._read_only()
        return _ZarrZip(self)

    def read(self, name: str) -> bytes:
        data = self.read_range(name, None)
        if zlib.crc32(data) != self._members[name].CRC:
            raise self._damaged(name)
        return data

    def read_range(self, name: str, wanted: ByteRequest | None) -> bytes:
        """The bytes of `name`, or a part of them, without comparing checksums.

        Raises:
            KeyError: there is no such name.
            UserError: the file is damaged, or of a kind that is not read.
        """
        member = self._members[name]
        start, stop = _bounds(wanted, member.file_size)
        with disk_errors(self.path, f"reading {name}"):
            if member.compress_type == zipfile.ZIP_STORED:
                return self._pread(name, self._start(name, member) + start, stop - start)
            return self._inflated(name, member)[start:stop]

    def write(self, name: str, data: bytes) -> None:
        raise self._read_only()

    def list(self, prefix: str) -> list[str]:
        folder = prefix.rstrip("/")
        return sorted(name for name in self._members if not folder or name.startswith(folder + "/"))

    def size(self, name: str) -> int | None:
        return self._members[name].file_size if name in self._members else None

    def delete(self, name: str) -> None:
        raise self._read_only()

    def sync(self, names: Iterable[str]) -> None:
        return None

    def sweep(self) -> None:
        return None

    @contextmanager
    def lock(self, *, wait_s: float) -> Iterator[None]:
        raise self._read_only()
        yield

    def exists(self) -> bool:
        return self.path.is_file()

    def __del__(self) -> None:
        if "_file" in self.__dict__:
            self._file.close()

    @cached_property
    def _members(self) -> dict[str, zipfile.ZipInfo]:
        if not self.exists():
            return {}
        try:
            with disk_errors(self.path, "opening"):
                self._file = _BoundedFile(self.path)
                with zipfile.ZipFile(self._file) as archive:
                    found = {info.filename: info for info in archive.infolist() if not info.filename.endswith("/")}
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error, OverflowError, EOFError) as error:
            raise UserError(
                f"{self.path} is not a zip file, or damaged ({error}): copy it again, or pack the store again"
            ) from error
        for name in found:
            if "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
                raise UserError(f"{self.path} holds the unsafe name {name!r}, so it is not an episode store")
        return _without_top_folder(found)

    def _start(self, name: str, member: zipfile.ZipInfo) -> int:
        signature, name_size, extra_size = _LOCAL_HEADER.unpack(
            self._pread(name, member.header_offset, _LOCAL_HEADER.size)
        )
        if signature != b"PK\3\4":
            raise self._damaged(name)
        if member.flag_bits & _ENCRYPTED:
            raise UserError(f"{self.path} is encrypted: unpack it, or pack the store again without a password")
        return member.header_offset + _LOCAL_HEADER.size + name_size + extra_size

    def _inflated(self, name: str, member: zipfile.ZipInfo) -> bytes:
        largest = max(member.file_size, member.compress_size)
        if member.compress_type != zipfile.ZIP_DEFLATED or largest > _LARGEST_DEFLATED:
            raise UserError(
                f"{self.path}: {name} is compressed in a way that cannot be read in place: unpack it, or pack the "
                "store again without compression (zip -0)"
            )
        packed = self._pread(name, self._start(name, member), member.compress_size)
        try:
            data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, member.file_size + 1)
        except zlib.error as error:
            raise self._damaged(name) from error
        if len(data) != member.file_size:
            raise self._damaged(name)
        return data

    def _pread(self, name: str, start: int, count: int) -> bytes:
        size = os.fstat(self._file.fileno()).st_size
        if not 0 <= start <= start + count <= size:
            raise self._damaged(name)
        parts = []
        while count:
            part = os.pread(self._file.fileno(), count, start)
            if not part:
                raise self._damaged(name)
            parts.append(part)
            start, count = start + len(part), count - len(part)
        return b"".join(parts)

    def _damaged(self, name: str) -> UserError:
        return UserError(f"{self.path} is damaged at {name}: copy it again, or pack the store again")

    def _read_only(self) -> UserError:
        return UserError(
            f"{self.path}: a .zip file is only read: unpack it and use the folder to add or change episodes"
        )


class _BoundedFile(io.FileIO):
    """A file whose list of files may not fill the memory."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > _LARGEST_DIRECTORY:
            raise zipfile.BadZipFile(f"a list of files of {size} bytes")
        return super().read(size)


class _ZarrZip(Store):
    """A `ZipStorage` as zarr sees it."""

    supports_writes = False
    supports_deletes = False
    supports_listing = True

    def __init__(self, place: ZipStorage) -> None:
        super().__init__(read_only=True)
        self.place = place

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ZarrZip) and other.place.path == self.place.path

    def __str__(self) -> str:
        return f"zip://{self.place.path}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _opened, (self.place.path,)

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        try:
            return prototype.buffer.from_bytes(await asyncio.to_thread(self.place.read_range, key, byte_range))
        except KeyError:
            return None

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        return [await self.get(key, prototype, byte_range) for key, byte_range in key_ranges]

    async def exists(self, key: str) -> bool:
        return self.place.size(key) is not None

    async def set(self, key: str, value: Buffer) -> None:
        self._check_writable()

    async def delete(self, key: str) -> None:
        self._check_writable()

    async def list(self) -> AsyncIterator[str]:
        for name in self.place.list(""):
            yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        for name in self.place.list(""):
            if name.startswith(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        folder = prefix.rstrip("/")
        inside = (name.removeprefix(folder + "/") if folder else name for name in self.place.list(folder))
        for child in dict.fromkeys(name.partition("/")[0] for name in inside):
            yield child


def _opened(path: Path) -> _ZarrZip:
    return _ZarrZip(ZipStorage(path))


def _bounds(wanted: ByteRequest | None, size: int) -> tuple[int, int]:
    if isinstance(wanted, RangeByteRequest):
        return min(wanted.start, size), min(wanted.end, size)
    if isinstance(wanted, OffsetByteRequest):
        return min(wanted.offset, size), size
    if isinstance(wanted, SuffixByteRequest):
        return max(0, size - wanted.suffix), size
    return 0, size


def _without_top_folder(members: dict[str, zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    tops = [name.removesuffix("zarr.json") for name in members if name.count("/") == 1 and name.endswith("/zarr.json")]
    if "zarr.json" in members or len(tops) != 1:
        return members
    return {name.removeprefix(tops[0]): info for name, info in members.items() if name.startswith(tops[0])}
