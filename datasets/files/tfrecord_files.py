"""TFRecord files, read without TensorFlow.

A record is its length (uint64), the masked CRC-32C of the length, the bytes, and their masked CRC-32C, all little
endian. What the bytes mean is the business of `datasets.files.tf_example`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c  # comes with zarr

from embodied.core.errors import UserError

MOST_RECORD_BYTES = (1 << 31) - 1  # no protobuf message is larger
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files hold: CRC-32C, rotated right by 15 bits, plus a constant."""
    crc = google_crc32c.value(data)
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF


@dataclass(frozen=True)
class RecordSpan:
    """Where the bytes of one record lie in a file."""

    path: Path
    index: int
    start: int
    length: int

    def __str__(self) -> str:
        return f"record {self.index} of {self.path} (at byte {self.start})"

    def damaged(self, what: str) -> UserError:
        return UserError(f"{self} is damaged: {what}; get the file again, or remove it")


def record_spans(path: Path) -> Iterator[RecordSpan]:
    """The records of a file in order; only their headers are read.

    Raises:
        UserError: a header is damaged or tells of more bytes than a record can have or the file has.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        offset = index = 0
        while offset < size:
            file.seek(offset)
            header = file.read(_HEADER.size)
            span = RecordSpan(path, index, offset + _HEADER.size, 0)
            if len(header) < _HEADER.size:
                raise span.damaged(f"the file ends after {len(header)} of the {_HEADER.size} bytes of its header")
            length, checksum = _HEADER.unpack(header)
            if masked_crc(header[:8]) != checksum:
                raise span.damaged("the checksum of its length does not fit (or the file is no uncompressed TFRecord)")
            left = size - span.start - _FOOTER.size
            if length > min(left, MOST_RECORD_BYTES):
                raise span.damaged(f"it claims {length} bytes, and the file has {max(0, left)} left for it")
            yield RecordSpan(path, index, span.start, length)
            offset, index = span.start + length + _FOOTER.size, index + 1


def read_record(span: RecordSpan) -> bytes:
    """The bytes of a record.

    Raises:
        UserError: they do not have their checksum.
    """
    with span.path.open("rb") as file:
        file.seek(span.start)
        data, footer = file.read(span.length), file.read(_FOOTER.size)
    if len(data) < span.length or len(footer) < _FOOTER.size:
        raise span.damaged("the file has become shorter")
    if masked_crc(data) != _FOOTER.unpack(footer)[0]:
        raise span.damaged("its checksum does not fit")
    return data
