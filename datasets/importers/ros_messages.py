"""ROS messages, from bytes to dictionaries, by the definitions that come with a recording.

The definitions are parsed by rosbags and interpreted here. rosbags' own deserialisers are Python code that it builds
from the definitions and executes; a recording is a file from somebody else, and nothing in it is run.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from embodied.core.errors import MissingExtraError

Message = dict[str, Any]
"""Fields by name: numbers, str, arrays of numbers [n], lists of str or Message, Message."""

HEADER = "std_msgs/msg/Header"
_TIME_TYPES = ("builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")
_DTYPES = {
    "bool": "u1", "byte": "u1", "char": "u1", "octet": "u1", "int8": "i1", "uint8": "u1", "int16": "i2",
    "uint16": "u2", "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8", "float32": "f4", "float64": "f8",
}  # fmt: skip
_FILLER = ("structure_needs_at_least_one_member", (1, ("uint8", 0)))  # what CDR has of an empty message
_LONGEST_DEFINITION = 1 << 16  # characters; the largest message types of ROS have some thousand
_MOST_FIELDS = 10_000  # of a message with those inside it: beyond, a definition is meant to do harm
_MOST_VALUES = 200_000  # of one message, where an array of numbers counts once


class MessageError(ValueError):
    """A message or its definition cannot be read; says why, without the place, which the caller knows."""


@dataclass(frozen=True)
class Field:
    """One field: numbers of `kind` (a name such as `float64`), `string`, or the struct that `kind` names.

    `length` is None for a single value, -1 for a sequence that brings its own, else a fixed number of elements.
    """

    name: str
    kind: str
    struct: Struct | None
    length: int | None


@dataclass(frozen=True)
class Struct:
    """A message type, resolved down to numbers and strings."""

    name: str
    fields: tuple[Field, ...]

    @property
    def has_header(self) -> bool:
        """Whether its first field is a std_msgs Header, whose stamp `header_stamp` reads."""
        return bool(self.fields) and self.fields[0].kind == HEADER and self.fields[0].length is None


def parse_definition(text: str, name: str) -> Mapping[str, Any]:
    """Types by name from a concatenated .msg definition, as rosbags' parser gives them.

    Raises:
        MessageError: the text is no such definition.
    """
    from rosbags.typesys import TypesysError, get_types_from_msg

    if len(text) > _LONGEST_DEFINITION:
        raise MessageError(f"its definition has {len(text)} characters")
    try:
        return get_types_from_msg(text, name)
    except (TypesysError, ValueError, AssertionError, KeyError, IndexError) as error:
        raise MessageError(f"its definition cannot be parsed ({type(error).__name__})") from error


@cache
def standard_types() -> Mapping[str, Any]:
    """The message types that ROS 2 comes with, for recordings that hold no definitions."""
    try:
        from rosbags.typesys import Stores, get_typestore
    except ImportError as error:
        raise MissingExtraError("rosbags", "ros") from error
    return get_typestore(Stores.LATEST).fielddefs


def resolve(name: str, types: Mapping[str, Any], *, ros1: bool) -> Struct:
    """The struct of the message type `name`.

    Raises:
        MessageError: it or a type inside it is not in `types`, contains itself, or is absurdly large.
    """
    budget = [_MOST_FIELDS]

    def build(name: str, inside: tuple[str, ...]) -> Struct:
        if name in _TIME_TYPES:
            return Struct(name, _time_fields(name, ros1))
        if name in inside:
            raise MessageError(f"the type {name} contains itself")
        if name not in types:
            raise MessageError(f"the definition of {name} is not in the recording")
        fields = types[name][1]
        if not fields and not ros1:
            fields = [_FILLER]
        budget[0] -= len(fields)
        if budget[0] < 0 or len(inside) > 32:
            raise MessageError(f"the type {name} has more than {_MOST_FIELDS} fields")
        return Struct(name, tuple(field(label, description, (*inside, name)) for label, description in fields))

    def field(label: str, description: Any, inside: tuple[str, ...]) -> Field:
        node, detail = description  # 1 a base type, 2 a named one, 3 a fixed array, 4 a sequence
        length = None if node < 3 else int(detail[1]) if node == 3 else -1
        node, detail = description if node < 3 else detail[0]
        if node == 2:
            return Field(label, detail, build(detail, inside), length)
        if detail[0] != "string" and detail[0] not in _DTYPES:
            raise MessageError(f"its field {label} has the type {detail[0]}")
        return Field(label, detail[0], None, length)

    return build(name, ())


def _time_fields(name: str, ros1: bool) -> tuple[Field, ...]:
    unsigned = ros1 and name.endswith("Time")
    seconds = Field("sec", "uint32" if unsigned else "int32", None, None)
    return seconds, Field("nanosec", "int32" if ros1 and not unsigned else "uint32", None, None)


def header_stamp(raw: bytes, *, ros1: bool) -> int:
    """Nanoseconds in the header that begins a message, without decoding the rest.

    Raises:
        MessageError: the message is too short.
    """
    order = ">" if not ros1 and raw[1:2] == b"\x00" else "<"
    try:
        # At byte 4 in both: CDR has its own header of 4 bytes before, ROS 1 a sequence number.
        seconds, nanoseconds = struct.unpack_from(order + ("II" if ros1 else "iI"), raw, 4)
    except struct.error as error:
        raise MessageError(f"it has {len(raw)} bytes, too few for a header") from error
    return int(seconds) * 1_000_000_000 + int(nanoseconds)


def decode(raw: bytes, message_type: Struct, *, ros1: bool) -> Message:
    """The fields of a message in CDR (as ROS 2 writes it, XCDR version 1) or in ROS 1's serialisation.

    Raises:
        MessageError: the bytes are not such a message.
    """
    if ros1:
        cursor = _Cursor(memoryview(raw), "<", aligned=False)
    elif raw[:2] in (b"\x00\x00", b"\x00\x01"):
        cursor = _Cursor(memoryview(raw)[4:], "<" if raw[1] else ">", aligned=True)
    else:
        raise MessageError(f"its encapsulation {raw[:2].hex() or 'is missing'}: only CDR (0000, 0001) can be read")
    message = cursor.struct(message_type)
    left = len(cursor.buffer) - cursor.position
    if left > (0 if ros1 else 3):  # CDR may be padded to four bytes
        raise MessageError(f"{left} bytes are left over: its definition is not the one it was written with")
    return message


class _Cursor:
    """Reads values one after the other; never beyond the end, never more than there are bytes for."""

    def __init__(self, buffer: memoryview, order: str, *, aligned: bool) -> None:
        self.buffer = buffer
        self.order = order
        self.aligned = aligned
        self.position = 0
        self.values = 0

    def struct(self, message_type: Struct) -> Message:
        return {field.name: self._field(field) for field in message_type.fields}

    def _field(self, field: Field) -> Any:
        if field.length is None:
            return self._single(field)
        count = self._number("uint32") if field.length < 0 else field.length
        if count > len(self.buffer) - self.position:  # every element takes a byte at least
            raise MessageError(f"its field {field.name} should have {count} elements, more than it has bytes")
        if field.struct is None and field.kind != "string":
            return self._array(field.kind, count)
        return [self._single(field) for _ in range(count)]

    def _single(self, field: Field) -> Any:
        self.values += 1
        if self.values > _MOST_VALUES:
            raise MessageError(f"it has more than {_MOST_VALUES} values")
        if field.struct is not None:
            return self.struct(field.struct)
        return self._string() if field.kind == "string" else self._number(field.kind)

    def _take(self, size: int, alignment: int = 1) -> int:
        """Moves on over `size` bytes and returns where they begin."""
        start = -(-self.position // alignment) * alignment if self.aligned else self.position
        if start + size > len(self.buffer):
            raise MessageError(f"it ends after {len(self.buffer)} bytes, in the middle of a field")
        self.position = start + size
        return start

    def _number(self, kind: str) -> Any:
        dtype = np.dtype(self.order + _DTYPES[kind])
        start = self._take(dtype.itemsize, dtype.itemsize)
        value = np.frombuffer(self.buffer, dtype, 1, start)[0].item()
        return bool(value) if kind == "bool" else value

    def _array(self, kind: str, count: int) -> np.ndarray:
        dtype = np.dtype(self.order + _DTYPES[kind])
        if not count:  # an empty sequence is not aligned
            return np.zeros(0, bool if kind == "bool" else dtype.newbyteorder("="))
        start = self._take(count * dtype.itemsize, dtype.itemsize)
        array = np.frombuffer(self.buffer, dtype, count, start)
        return array != 0 if kind == "bool" else array.astype(dtype.newbyteorder("="), copy=False)

    def _string(self) -> str:
        size = self._number("uint32")
        start = self._take(size)
        return bytes(self.buffer[start : start + size]).rstrip(b"\x00").decode(errors="replace")
