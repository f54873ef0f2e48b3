"""The files of an array: shards of chunks, in zarr's `sharding_indexed` format with the index at the end.

A shard is the sealed chunks one after the other, then per chunk offset and size (uint64, little-endian, all ones for no
chunk), then the CRC-32C of that table.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import google_crc32c
import numpy as np
from zarr.abc.store import RangeByteRequest, Store
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.storage.local import LocalStorage
from embodied.datasets.storage.location import Storage
from embodied.datasets.store.chunk_codecs import CRC_BYTES, DamagedChunkError, unseal

_ENTRY_BYTES = 16
_NO_CHUNK = (1 << 64) - 1


class DamagedShardError(Exception):
    """The file is missing, or its table is not one; says in what way."""


class ByteSource(Protocol):
    """Bytes `start` to `stop` of one file, and its size."""

    size: int

    def read(self, start: int, stop: int) -> bytes: ...


class WholeFile:
    """A file in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self.size = data, len(data)

    def read(self, start: int, stop: int) -> bytes:
        return self._data[start:stop]


class _LocalFile:
    # One descriptor for table and chunks: a writer that replaces the file meanwhile does not mix the two.
    def __init__(self, descriptor: int) -> None:
        self._descriptor, self.size = descriptor, os.fstat(descriptor).st_size

    def read(self, start: int, stop: int) -> bytes:
        return os.pread(self._descriptor, stop - start, start)


class _RemoteObject:
    def __init__(self, store: Store, name: str, size: int) -> None:
        self._store, self._name, self.size = store, name, size

    def read(self, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        found: Any = sync(self._store.get(self._name, default_buffer_prototype(), RangeByteRequest(start, stop)))
        return b"" if found is None else found.to_bytes()


@contextmanager
def opened_file(storage: Storage, name: str, *, whole: bool = False) -> Iterator[ByteSource]:
    """A file of the storage; `whole` reads it in one piece, which nobody can change in between.

    Raises:
        DamagedShardError: it is missing.
        UserError: disk or server fail.
    """
    if isinstance(storage, LocalStorage) and not whole:
        with disk_errors(storage.folder, f"reading {name}"):
            try:
                descriptor = os.open(storage.folder / name, os.O_RDONLY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):
                raise DamagedShardError("the file is missing") from None
            try:
                yield _LocalFile(descriptor)
            finally:
                os.close(descriptor)
    elif whole:
        try:
            data = storage.read(name)
        except KeyError:
            raise DamagedShardError("the file is missing") from None
        yield WholeFile(data)
    else:
        size = storage.size(name)
        if size is None:
            raise DamagedShardError("the file is missing")
        yield _RemoteObject(storage.zarr_store(writable=False), name, size)


class Shard:
    """A shard whose table is read and checked.

    Args:
        source: its file.
        chunks: how many the table has room for.

    Raises:
        DamagedShardError: the table is not what was written.
    """

    def __init__(self, source: ByteSource, *, chunks: int) -> None:
        self._source = source
        table_bytes = chunks * _ENTRY_BYTES + CRC_BYTES
        end = source.size - table_bytes
        try:
            table = unseal(source.read(end, source.size) if end >= 0 else b"")
        except DamagedChunkError:
            what = "the checksum of its table does not match" if end >= 0 else f"it has only {source.size} bytes"
            raise DamagedShardError(what) from None
        self._entries = np.frombuffer(table, "<u8").reshape(chunks, 2).tolist()
        for offset, size in self._entries:
            if offset != _NO_CHUNK and offset + size > end:
                raise DamagedShardError("its table points beyond its end")

    def sealed(self, start: int, stop: int) -> list[bytes]:
        """The bytes of chunks `start` to `stop` with their checksums, not compared yet; empty where one is missing."""
        entries = self._entries[start:stop]
        sizes = [0 if offset == _NO_CHUNK else size for offset, size in entries]
        if not sum(sizes):
            return [b""] * len(sizes)
        begins = [sum(sizes[:number]) for number in range(len(sizes))]
        if all(offset == entries[0][0] + begin for (offset, _), begin in zip(entries, begins, strict=True)):
            data = self._source.read(entries[0][0], entries[0][0] + sum(sizes))  # one request instead of many
            return [data[begin : begin + size] for begin, size in zip(begins, sizes, strict=True)]
        return [
            self._source.read(offset, offset + size) if size else b""
            for (offset, _), size in zip(entries, sizes, strict=True)
        ]


def build_shard(sealed: Sequence[bytes], *, chunks: int) -> bytes:
    """The file of these chunks, which are the first of `chunks`."""
    table = np.full((chunks, 2), _NO_CHUNK, "<u8")
    sizes = [len(data) for data in sealed]
    table[: len(sealed), 1] = sizes
    table[: len(sealed), 0] = np.cumsum([0, *sizes[:-1]])
    entries = table.tobytes()
    return b"".join([*sealed, entries, google_crc32c.value(entries).to_bytes(CRC_BYTES, "little")])
