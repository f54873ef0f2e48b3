"""tf.train.Example messages, read without TensorFlow and without protobuf.

An Example maps names to lists of bytes, of float32 or of int64. Only the wire format of these messages is parsed,
without recursion, and never beyond the end of the message it is in.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import BinaryIO

import numpy as np

from embodied.datasets.files.tfrecord_files import RecordSpan

_SEGMENT = 1 << 20  # bytes of varints decoded at a time: their int64 take up to 8 times as much
_LONGEST_VARINT = 10
_KINDS = {1: "bytes", 2: "float", 3: "int64"}  # the fields of tf.train.Feature


@dataclass
class FeatureList:
    """The values under one name of an Example, still in wire format.

    Args:
        kind: `bytes`, `float`, `int64`, or empty where the message names no kind.
        items: the values, if bytes.
        packed: the values, if numbers: float32 little endian, or varints.
    """

    kind: str = ""
    items: list[bytes] = field(default_factory=list)
    packed: bytearray = field(default_factory=bytearray)

    def __len__(self) -> int:
        if self.kind == "bytes":
            return len(self.items)
        if self.kind == "float":
            return len(self.packed) // 4
        return int(np.count_nonzero(np.frombuffer(self.packed, np.uint8) < 0x80))

    def numbers(self, dtype: str) -> np.ndarray:
        """The values as `dtype` [N]; uint64 takes the bits of int64.

        Raises:
            ValueError: they are of another kind, or an integer does not fit.
        """
        wanted = np.dtype(dtype)
        if self.items or (self.kind == "float" and wanted.kind != "f"):
            raise ValueError(f"expected {dtype}, got {self.kind}")
        if self.kind == "float":
            return np.frombuffer(bytes(self.packed), "<f4").astype(wanted)
        return _varints(bytes(self.packed), wanted)


def parse_example(
    handle: BinaryIO, span: RecordSpan, *, start: int, only: Collection[str] | None = None
) -> dict[str, FeatureList]:
    """The lists of the Example that is in `handle` from `start` on, `span.length` bytes.

    With `only`, the values of other names are skipped over without being read.

    Raises:
        UserError: the bytes are no Example.
    """
    wire = _Wire(handle, start, span)
    found: dict[str, FeatureList] = {}
    stop = start + span.length
    while wire.position < stop:
        field_number, kind = wire.tag(stop)
        if (field_number, kind) != (1, 2):
            wire.skip(kind, stop)
            continue
        features_stop = wire.message(stop)
        while wire.position < features_stop:
            field_number, kind = wire.tag(features_stop)
            if (field_number, kind) != (1, 2):
                wire.skip(kind, features_stop)
                continue
            _parse_entry(wire, wire.message(features_stop), found, only)
    return found


def _parse_entry(wire: _Wire, stop: int, found: dict[str, FeatureList], only: Collection[str] | None) -> None:
    name, values = "", FeatureList()
    while wire.position < stop:
        field_number, kind = wire.tag(stop)
        if (field_number, kind) == (1, 2):
            name = wire.take(wire.message(stop) - wire.position).decode("utf-8", "replace")
        elif (field_number, kind) == (2, 2) and (only is None or name in only):
            _parse_feature(wire, wire.message(stop), values)
        else:
            wire.skip(kind, stop)
    if only is None or name in only:
        found[name] = values


def _parse_feature(wire: _Wire, stop: int, values: FeatureList) -> None:
    while wire.position < stop:
        number, kind = wire.tag(stop)
        if number not in _KINDS or kind != 2:
            wire.skip(kind, stop)
            continue
        list_stop = wire.message(stop)
        if values.kind != _KINDS[number]:  # one of several kinds: the last one counts
            values.kind, values.items, values.packed = _KINDS[number], [], bytearray()
        while wire.position < list_stop:
            _parse_value(wire, list_stop, values)


def _parse_value(wire: _Wire, stop: int, values: FeatureList) -> None:
    number, kind = wire.tag(stop)
    if number != 1:
        wire.skip(kind, stop)
    elif values.kind == "bytes" and kind == 2:
        values.items.append(wire.take(wire.message(stop) - wire.position))
    elif kind == 2:  # packed numbers
        chunk = wire.take(wire.message(stop) - wire.position)
        if len(chunk) % 4 if values.kind == "float" else chunk[-1:] >= b"\x80":
            raise wire.span.damaged("a list of numbers is cut off")
        values.packed += chunk
    elif values.kind == "float" and kind == 5:
        values.packed += wire.take(4, stop)
    elif values.kind == "int64" and kind == 0:
        before = wire.position
        wire.varint(stop)
        wire.handle.seek(before)
        values.packed += wire.handle.read(wire.position - before)
    else:
        raise wire.span.damaged(f"a list of {values.kind} has a value of wire type {kind}")


class _Wire:
    """A cursor over protobuf's wire format; nothing is read beyond the `stop` of the message it is in."""

    def __init__(self, handle: BinaryIO, start: int, span: RecordSpan) -> None:
        self.handle, self.position, self.span = handle, start, span
        handle.seek(start)

    def take(self, count: int, stop: int | None = None) -> bytes:
        if stop is not None and self.position + count > stop:
            raise self.span.damaged("a value ends beyond its message")
        data = self.handle.read(count)
        if len(data) < count:
            raise self.span.damaged("the file has become shorter")
        self.position += count
        return data

    def varint(self, stop: int) -> int:
        value = 0
        for shift in range(0, 7 * _LONGEST_VARINT, 7):
            byte = self.take(1, stop)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise self.span.damaged("a number has more than 64 bits")

    def tag(self, stop: int) -> tuple[int, int]:
        """Field number and wire type."""
        value = self.varint(stop)
        return value >> 3, value & 7

    def message(self, stop: int) -> int:
        """Where the message (or string) ends whose length is next."""
        length = self.varint(stop)
        if length > stop - self.position:
            raise self.span.damaged(f"a part claims {length} bytes of the {stop - self.position} that are left")
        return self.position + length

    def skip(self, kind: int, stop: int) -> None:
        """Step over a value."""
        if kind == 0:
            self.varint(stop)
        elif kind in (1, 5):
            self.take(8 if kind == 1 else 4, stop)
        elif kind == 2:
            self.position = self.message(stop)
            self.handle.seek(self.position)
        else:
            raise self.span.damaged(f"it has a field of wire type {kind}: it is no tf.train.Example")


def _varints(data: bytes, dtype: np.dtype) -> np.ndarray:
    parts, start = [], 0
    while start < len(data):
        stop = min(len(data), start + _SEGMENT)
        while data[stop - 1] >= 0x80:  # the last byte of `data` is below: a parsed list never ends in a varint
            stop += 1
        parts.append(_fitting(_segment(np.frombuffer(data[start:stop], np.uint8)), dtype))
        start = stop
    return np.concatenate(parts) if parts else np.zeros(0, dtype)


def _segment(data: np.ndarray) -> np.ndarray:
    """The int64 of whole varints: 7 bits a byte, lowest first."""
    ends = np.flatnonzero(data < 0x80)
    if len(ends) == len(data):
        return data.astype(np.int64)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > _LONGEST_VARINT:
        raise ValueError("a number has more than 64 bits")
    shifts = 7 * (np.arange(len(data)) - np.repeat(starts, lengths))
    bits = (data & 0x7F).astype(np.uint64) << shifts.astype(np.uint64)
    return np.bitwise_or.reduceat(bits, starts).view(np.int64)


def _fitting(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "f":
        return values.astype(dtype)
    if dtype == np.uint64:
        return values.view(np.uint64)
    converted = values.astype(dtype)
    if not np.array_equal(converted.astype(np.int64), values):
        wrong = int(values[converted.astype(np.int64) != values][0])
        raise ValueError(f"{wrong} does not fit {dtype}")
    return converted
