"""One MCAP file, read from front to back with the memory of one chunk.

The file's own index is asked only which topics there are; order and completeness come from the records themselves, so
that a wrong index cannot hide messages. Every length is checked against what is left of the file before it is used.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Collection, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from embodied.core.errors import MissingExtraError, UserError

_MAGIC = b"\x89MCAP0\r\n"
_FOOTER_SIZE = 9 + 20 + len(_MAGIC)
_LARGEST_CHUNK = 1 << 29  # bytes, decompressed; recorders write about one million, or one message if that is larger
_HEADER, _FOOTER, _SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _METADATA, _DATA_END = 1, 2, 3, 4, 5, 6, 12, 15
_BEFORE_DATA = struct.Struct("<HIQQ")  # of a message: channel, sequence number, log time, publish time
_CHUNK_HEAD = struct.Struct("<QQQI")  # first and last log time, size and CRC of the decompressed records


class McapFile:
    """An opened file: `channels` by id with `topic`, `schema_id` and `message_encoding`, `schemas` by id, `metadata`.

    Raises:
        UserError: it is no MCAP file, was cut off, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            from mcap import records
        except ImportError as error:
            raise MissingExtraError("mcap", "ros") from error
        self.path = path
        self.channels: dict[int, Any] = {}
        self.schemas: dict[int, Any] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self._records = {_SCHEMA: records.Schema, _CHANNEL: records.Channel, _METADATA: records.Metadata}
        self._size = path.stat().st_size
        with path.open("rb") as file:
            summary = self._check_ends(file)
            if summary:
                self._read_summary(file, summary)
        if not self.channels:
            for _ in self.messages(()):
                pass

    def messages(
        self, wanted: Collection[str], start: int = 0, stop: int = 1 << 64
    ) -> Generator[tuple[str, int, bytes]]:
        """Topic, log time in nanoseconds and bytes of the messages of some topics, in the order of the file.

        Args:
            start, stop: only messages with start <= log time < stop.

        Raises:
            UserError: the file is damaged, at a place that the message names.
        """
        with self.path.open("rb") as file:
            file.seek(len(_MAGIC))
            for opcode, body, place in self._bodies(file):
                if opcode in (_DATA_END, _FOOTER):
                    return
                if opcode != _CHUNK:
                    yield from self._record(opcode, body, place, wanted, start, stop)
                    continue
                chunk = self._decompressed(body, place, start, stop)
                inside = io.BytesIO(chunk)
                for inner, record, _ in self._bodies(inside, size=len(chunk), place=place):
                    yield from self._record(inner, record, place, wanted, start, stop)

    def _record(
        self, opcode: int, body: bytes, place: int, wanted: Collection[str], start: int, stop: int
    ) -> Generator[tuple[str, int, bytes]]:
        if opcode == _MESSAGE:
            if len(body) < _BEFORE_DATA.size:
                raise self._damaged(place, "a message without a head")
            channel, _, log_time, _ = _BEFORE_DATA.unpack_from(body)
            if channel not in self.channels:
                raise self._damaged(place, f"a message of the unknown channel {channel}")
            topic = self.channels[channel].topic
            if topic in wanted and start <= log_time < stop:
                yield topic, log_time, body[_BEFORE_DATA.size :]
        else:
            self._remember(opcode, body, place)

    def _remember(self, opcode: int, body: bytes, place: int) -> None:
        if opcode not in self._records:
            return
        from mcap.data_stream import ReadDataStream
        from mcap.exceptions import EndOfFile

        try:
            record = self._records[opcode].read(ReadDataStream(io.BytesIO(body)))
        except (EndOfFile, struct.error, UnicodeDecodeError) as error:
            raise self._damaged(place, f"a record of kind {opcode} that cannot be read") from error
        if opcode == _SCHEMA:
            self.schemas[record.id] = record
        elif opcode == _CHANNEL:
            self.channels[record.id] = record
        else:
            self.metadata[record.name] = record.metadata

    def _check_ends(self, file: BinaryIO) -> int:
        """Where the summary begins, 0 if there is none."""
        if file.read(len(_MAGIC)) != _MAGIC:
            raise UserError(f"{self.path} is no MCAP file: it does not begin like one")
        file.seek(max(self._size - _FOOTER_SIZE, 0))
        footer = file.read()
        if footer[-len(_MAGIC) :] != _MAGIC or footer[:9] != struct.pack("<BQ", _FOOTER, 20):
            raise UserError(
                f"{self.path} was cut off: it has no footer, as after a crash of the recorder or an unfinished copy; "
                "copy it again, or keep what there is with: mcap recover IN.mcap -o OUT.mcap"
            )
        return int(struct.unpack_from("<Q", footer, 9)[0])

    def _read_summary(self, file: BinaryIO, start: int) -> None:
        if not len(_MAGIC) <= start < self._size:
            raise self._damaged(self._size - _FOOTER_SIZE, "a summary that begins outside of the file")
        file.seek(start)
        for opcode, body, place in self._bodies(file):
            if opcode == _FOOTER:
                return
            if opcode == 13:  # an index of metadata, which lies before the summary
                self._read_metadata(file, body, place)
            self._remember(opcode, body, place)

    def _read_metadata(self, file: BinaryIO, index: bytes, place: int) -> None:
        if len(index) < 8 or (offset := struct.unpack_from("<Q", index)[0]) >= self._size:
            raise self._damaged(place, "an index that points outside of the file")
        back = file.tell()
        file.seek(offset)
        opcode, body, _ = next(self._bodies(file))
        if opcode == _METADATA:
            self._remember(opcode, body, offset)
        file.seek(back)

    def _bodies(
        self, file: BinaryIO, size: int | None = None, place: int | None = None
    ) -> Iterator[tuple[int, bytes, int]]:
        """Kind, bytes and place of the records that matter, up to the end of `file`, which a chunk may be."""
        end = self._size if size is None else size
        wanted = {_MESSAGE, _CHUNK, _DATA_END, _FOOTER, 13, *self._records}
        while (here := file.tell()) < end:
            head = file.read(9)
            where = here if place is None else place
            if len(head) < 9:
                raise self._damaged(where, "half a record")
            opcode, length = struct.unpack("<BQ", head)
            if length > end - here - 9:
                raise self._damaged(where, f"a record of {length} bytes that goes beyond its end")
            if opcode in wanted and length > _LARGEST_CHUNK:
                raise self._damaged(where, f"a record of {length} bytes")
            if opcode in wanted:
                yield opcode, file.read(length), where
            else:
                file.seek(length, io.SEEK_CUR)

    def _decompressed(self, body: bytes, place: int, start: int, stop: int) -> bytes:
        """The records of a chunk; nothing if it says that all its messages are outside of the times asked for."""
        if len(body) < _CHUNK_HEAD.size + 12:
            raise self._damaged(place, "a chunk without a head")
        first, last, size, crc = _CHUNK_HEAD.unpack_from(body)
        (length,) = struct.unpack_from("<I", body, _CHUNK_HEAD.size)
        data = _CHUNK_HEAD.size + 4 + length + 8
        if data > len(body) or size > _LARGEST_CHUNK:
            raise self._damaged(place, f"a chunk of {size} bytes, or one without a head")
        if self.channels and size and (first >= stop or last < start):
            return b""
        compression = body[_CHUNK_HEAD.size + 4 : data - 8].decode(errors="replace")
        records = decompress(body[data:], compression, size)
        if records is None:
            raise UserError(
                f"{self.path}: the chunk at byte {place} is compressed with {compression!r}, not zstd or lz4"
            )
        if len(records) != size or (crc and zlib.crc32(records) != crc):
            raise self._damaged(place, "a chunk that is not what was written (size or checksum)")
        return records

    def _damaged(self, place: int, found: str) -> UserError:
        return UserError(
            f"{self.path} is damaged: {found} at byte {place}; restore it from a copy, or keep what can be read with: "
            "mcap recover IN.mcap -o OUT.mcap"
        )


def decompress(data: bytes, compression: str, limit: int) -> bytes | None:
    """`data` decompressed; empty if it is damaged, None if `compression` is unknown.

    At most `limit` bytes and one more, and no more memory than that, whatever `data` claims of its size.
    """
    import lz4.frame
    import zstandard

    if compression == "":
        return data
    try:
        if compression == "zstd":
            with zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(data) as reader:
                return reader.read(limit + 1)
        if compression == "lz4":
            return bytes(lz4.frame.LZ4FrameDecompressor().decompress(data, max_length=limit + 1))
    except (zstandard.ZstdError, RuntimeError, EOFError, MemoryError):
        return b""
    return None
