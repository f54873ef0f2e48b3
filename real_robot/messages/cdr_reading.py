"""Packets to messages: CDR as ROS 2 writes it (XCDR version 1), and ROS 1's serialisation.

Arrays of numbers are views of the packet wherever their byte order is this machine's: an image is not copied. A packet
comes from somebody else: every length in it is checked against the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import struct as packing
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import numpy as np

from embodied.real_robot.messages.definition import NUMBERS, PACKING
from embodied.real_robot.messages.structs import DURATION, HEADER, TIME, Field, Struct, element_size
from embodied.real_robot.messages.values import Message, class_of

MAX_VALUES = 200_000
"""Of one message, where an array of numbers counts once: what a hostile packet can make this program allocate."""

Order = Literal["<", ">"]
_NATIVE: Order = "<" if sys.byteorder == "little" else ">"
_ORDERS: dict[bytes, Order] = {b"\x00\x00": ">", b"\x00\x01": "<"}  # by encapsulation; others are XCDR 2's


class MessageError(ValueError):
    """A packet is no such message, or a message does not fit its type."""


Read = Callable[["Cursor"], Any]


class Cursor:
    """Reads values one after the other, never beyond the end."""

    __slots__ = ("aligned", "buffer", "order", "position", "values")

    def __init__(self, buffer: memoryview, order: Order, *, aligned: bool) -> None:
        self.buffer, self.order, self.aligned = buffer, order, aligned
        self.position = self.values = 0

    def take(self, size: int, alignment: int = 1) -> int:
        """Move on over `size` bytes and return where they begin."""
        start = self.position
        if self.aligned:
            start += -start % alignment
        end = start + size
        if end > len(self.buffer):
            raise MessageError(f"it ends after {len(self.buffer)} bytes, where {end} are needed")
        self.position = end
        return start

    def count(self, name: str, smallest: int, bound: int) -> int:
        """The length of a sequence whose elements take at least `smallest` bytes."""
        count = int(packing.unpack_from(self.order + "I", self.buffer, self.take(4, 4))[0])
        left = len(self.buffer) - self.position
        if count * smallest > left:
            raise MessageError(f"its {name} should have {count} elements, for which {left} bytes are not enough")
        if bound and count > bound:
            raise MessageError(f"its {name} has {count} elements, more than {bound}")
        return count

    def spend(self, values: int) -> None:
        """Count what is about to be made."""
        self.values += values
        if self.values > MAX_VALUES:
            raise MessageError(f"it has more than {MAX_VALUES} values")


def decode(packet: bytes | memoryview | bytearray, message_type: type[Message]) -> Message:
    """The message in a packet of CDR, in either byte order.

    Raises:
        MessageError: it is none of that type: cut short, too long, another type, or XCDR 2.
    """
    view = memoryview(packet).cast("B")
    order = _ORDERS.get(bytes(view[:2]))
    if len(view) < 4 or order is None:
        raise MessageError(f"its encapsulation is {bytes(view[:4]).hex() or 'missing'}: only CDR (0000, 0001) is read")
    cursor = Cursor(view[4:], order, aligned=True)
    return _whole(cursor, message_type.struct, ros1=False, padding=3)


def decode_ros1(packet: bytes | memoryview | bytearray, message_type: type[Message]) -> Message:
    """The message in a packet of ROS 1; a header's `seq` is dropped. Raises MessageError as `decode` does."""
    cursor = Cursor(memoryview(packet).cast("B"), "<", aligned=False)
    return _whole(cursor, message_type.struct, ros1=True, padding=0)


def _whole(cursor: Cursor, struct: Struct, *, ros1: bool, padding: int) -> Message:
    message: Message = _reader(struct, ros1)(cursor)
    left = len(cursor.buffer) - cursor.position
    if left > padding:
        raise MessageError(f"{left} bytes are left over: it is no {struct.name}")
    return message


_READERS: dict[tuple[Struct, bool], Read] = {}


def _reader(struct: Struct, ros1: bool) -> Read:
    key = (struct, ros1)
    if key not in _READERS:
        made = class_of(struct)
        empty = ros1 and not struct.definition.fields  # nothing at all in ROS 1
        reads = [] if empty else [_field_reader(field, struct, ros1) for field in struct.fields]
        skips_seq = ros1 and struct.name == HEADER
        _READERS[key] = partial(_read_message, made, reads, skips_seq)
    return _READERS[key]


def _read_message(made: type[Message], reads: list[Read], skips_seq: bool, cursor: Cursor) -> Message:
    if skips_seq:
        cursor.take(4)
    cursor.spend(len(reads) + 1)
    return made(*[read(cursor) for read in reads])


def _field_reader(field: Field, owner: Struct, ros1: bool) -> Read:
    definition = field.definition
    kind = ros1_kind(owner, definition.kind, field.name) if ros1 else definition.kind
    single: Read
    if field.struct is not None:
        single = _reader(field.struct, ros1)
    elif kind == "string":
        single = partial(_read_string, field.name, definition.string_bound, 0 if ros1 else 1)
    elif definition.shape == "single":
        return partial(_read_number, kind, PACKING[NUMBERS[kind]], int(NUMBERS[kind][1:]))
    else:
        fixed = definition.size if definition.shape == "array" else None
        return partial(_read_numbers, field.name, kind, np.dtype(NUMBERS[kind]), fixed, definition.size)
    if definition.shape == "single":
        return single
    fixed = definition.size if definition.shape == "array" else None
    return partial(_read_list, field.name, single, element_size(field), fixed, definition.size)


def ros1_kind(owner: Struct, kind: str, name: str) -> str:
    """Kinds that differ: ROS 1's Time counts its seconds without a sign, its Duration nanoseconds with one."""
    if owner.name == TIME and name == "sec":
        return "uint32"
    return "int32" if owner.name == DURATION and name == "nanosec" else kind


def _read_number(kind: str, code: str, size: int, cursor: Cursor) -> Any:
    (value,) = packing.unpack_from(cursor.order + code, cursor.buffer, cursor.take(size, size))
    return value != 0 if kind == "bool" else value


def _read_numbers(name: str, kind: str, dtype: np.dtype, fixed: int | None, bound: int, cursor: Cursor) -> np.ndarray:
    count = cursor.count(name, dtype.itemsize, bound) if fixed is None else fixed
    if not count:  # an empty sequence is not aligned
        return np.zeros(0, bool if kind == "bool" else dtype)
    start = cursor.take(count * dtype.itemsize, dtype.itemsize)
    array = np.frombuffer(cursor.buffer, dtype.newbyteorder(cursor.order), count, start)
    if kind == "bool":
        return array != 0
    return array if cursor.order == _NATIVE else array.astype(dtype)


def _read_list(name: str, single: Read, smallest: int, fixed: int | None, bound: int, cursor: Cursor) -> list[Any]:
    count = cursor.count(name, smallest, bound) if fixed is None else fixed
    cursor.spend(count)
    return [single(cursor) for _ in range(count)]


def _read_string(name: str, bound: int, terminators: int, cursor: Cursor) -> str:
    size = cursor.count(name, 1, 0)
    start = cursor.take(size)
    raw = bytes(cursor.buffer[start : start + size])
    if terminators and raw:  # some writers send an empty string without its NUL
        if raw[-1]:
            raise MessageError(f"its {name} is a string without its end")
        raw = raw[:-1]
    if bound and len(raw) > bound:
        raise MessageError(f"its {name} has {len(raw)} bytes, more than {bound}")
    return raw.decode(errors="replace")  # ROS promises no encoding; a name must not stop a robot
