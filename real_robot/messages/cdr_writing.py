"""Messages to packets: CDR as ROS 2 reads it (XCDR version 1, little endian), and ROS 1's serialisation."""

from __future__ import annotations

import struct as packing
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from embodied.real_robot.messages.cdr_reading import MessageError, ros1_kind
from embodied.real_robot.messages.definition import INTEGERS, NUMBERS, PACKING
from embodied.real_robot.messages.structs import HEADER, Field, Struct
from embodied.real_robot.messages.values import Message

ENCAPSULATION = b"\x00\x01\x00\x00"  # CDR, little endian, no options
_ZEROS = bytes(8)


class Output:
    """Collects bytes; arrays are joined from where they lie."""

    __slots__ = ("aligned", "parts", "position")

    def __init__(self, *, aligned: bool) -> None:
        self.aligned = aligned
        self.parts: list[bytes | memoryview] = []
        self.position = 0

    def put(self, data: bytes | memoryview, alignment: int = 1) -> None:
        """Append, after as many zeros as it takes to be aligned."""
        gap = -self.position % alignment if self.aligned else 0
        if gap:
            self.parts.append(_ZEROS[:gap])
        self.parts.append(data)
        self.position += gap + len(data)


Write = Callable[[Output, Any], None]


def encode(message: Message) -> bytes:
    """A packet of CDR, without padding behind it: DDS wants that and adds it itself, over Zenoh it is an error.

    Raises:
        MessageError: a value does not fit its field; says which.
    """
    output = Output(aligned=True)
    _writer(message.struct, False)(output, message)
    return b"".join((ENCAPSULATION, *output.parts))


def encode_ros1(message: Message) -> bytes:
    """A packet of ROS 1; a header's `seq` is 0. Raises MessageError as `encode` does."""
    output = Output(aligned=False)
    _writer(message.struct, True)(output, message)
    return b"".join(output.parts)


_WRITERS: dict[tuple[Struct, bool], Write] = {}


def _writer(struct: Struct, ros1: bool) -> Write:
    key = (struct, ros1)
    if key not in _WRITERS:
        empty = ros1 and not struct.definition.fields
        fields = () if empty else struct.fields
        writes = [(field.name, _field_writer(field, struct, ros1)) for field in fields]
        _WRITERS[key] = partial(_write_message, struct, writes, ros1 and struct.name == HEADER)
    return _WRITERS[key]


def _write_message(
    struct: Struct, writes: list[tuple[str, Write]], has_seq: bool, output: Output, message: Any
) -> None:
    if not isinstance(message, Message) or message.struct is not struct:
        raise MessageError(f"expected a {struct.name}, got {type(message).__name__}")
    if has_seq:
        output.put(_ZEROS[:4])
    for name, write in writes:
        try:
            write(output, getattr(message, name))
        except MessageError as error:
            raise MessageError(f"{name}: {error}" if ": " not in str(error) else f"{name}.{error}") from None
        except (packing.error, OverflowError, TypeError, ValueError) as error:
            raise MessageError(f"{name}: {error}") from error


def _field_writer(field: Field, owner: Struct, ros1: bool) -> Write:
    definition = field.definition
    kind = ros1_kind(owner, definition.kind, field.name) if ros1 else definition.kind
    single: Write
    if field.struct is not None:
        single = _writer(field.struct, ros1)
    elif kind == "string":
        single = partial(_write_string, definition.string_bound, b"" if ros1 else b"\x00")
    elif definition.shape == "single":
        if kind == "bool":
            return _write_bool
        return partial(_write_number, packing.Struct("<" + PACKING[NUMBERS[kind]]))
    else:
        single = partial(_write_numbers, kind)
    if definition.shape == "single":
        return single
    return partial(_write_several, single, definition.shape == "array", definition.size, kind in NUMBERS)


def _write_number(form: packing.Struct, output: Output, value: Any) -> None:
    output.put(form.pack(value), form.size)


def _write_bool(output: Output, value: Any) -> None:
    if not isinstance(value, bool | np.bool_):
        raise MessageError(f"expected a bool, got {value!r}")
    output.put(b"\x01" if value else b"\x00")


def _write_string(bound: int, terminator: bytes, output: Output, value: Any) -> None:
    if not isinstance(value, str):
        raise MessageError(f"expected a str, got {type(value).__name__}")
    raw = value.encode()
    if b"\x00" in raw or (bound and len(raw) > bound):
        raise MessageError(f"a string of {len(raw)} bytes, " + (f"more than {bound}" if bound else "a NUL among them"))
    output.put(packing.pack("<I", len(raw) + len(terminator)), 4)
    output.put(raw + terminator)


def _write_several(single: Write, fixed: bool, size: int, numbers: bool, output: Output, values: Any) -> None:
    if isinstance(values, str) or not hasattr(values, "__len__"):
        raise MessageError(f"expected several values, got {values!r:.40}")
    length = values.size if isinstance(values, np.ndarray) else len(values)
    if isinstance(values, memoryview):
        length = values.nbytes
    if (fixed and length != size) or (not fixed and size and length > size):
        raise MessageError(f"expected {'' if fixed else 'at most '}{size} elements, got {length}")
    if not fixed:
        output.put(packing.pack("<I", length), 4)
    if numbers:
        single(output, values)
        return
    for value in values:
        single(output, value)


def _write_numbers(kind: str, output: Output, values: Any) -> None:
    dtype = np.dtype(NUMBERS[kind]).newbyteorder("<")
    array = _numbers(kind, dtype, values)
    if array.size:  # an empty sequence is not aligned
        output.put(np.ascontiguousarray(array, dtype).data.cast("B"), dtype.itemsize)


def _numbers(kind: str, dtype: np.dtype, values: Any) -> np.ndarray:
    """Any shape; the bytes of several dimensions follow one another row by row."""
    if isinstance(values, bytes | bytearray | memoryview):
        if dtype.itemsize > 1:
            raise MessageError(f"expected numbers of {kind}, got bytes")
        return np.frombuffer(values, np.uint8).view(dtype)
    array = np.asarray(values)
    if not array.size or array.dtype == dtype:
        return array
    if kind == "bool":
        if array.dtype != bool:
            raise MessageError(f"expected bool, got {array.dtype}")
    elif kind in INTEGERS or kind in ("byte", "char"):
        limits = np.iinfo(dtype)
        if array.dtype.kind not in "iu" or int(array.min()) < limits.min or int(array.max()) > limits.max:
            raise MessageError(f"expected numbers of {kind}, got {array.dtype} up to {array.max()}")
    elif array.dtype.kind not in "fiu":
        raise MessageError(f"expected numbers of {kind}, got {array.dtype}")
    return array
