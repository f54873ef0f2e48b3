"""Message types as Cyclone DDS wants them told: a small program for its (de)serialiser, and nothing else.

Cyclone checks every packet against this program before anybody sees it. What a program means: `dds_opcodes.h` of
Cyclone DDS. There is deliberately no XTypes information: a peer of Cyclone 0.10 that receives ours from version 11
crashes, and ROS 2's own nodes over Cyclone have none either.
"""

from __future__ import annotations

from dataclasses import dataclass

from embodied.real_robot.messages.definition import NUMBERS
from embodied.real_robot.messages.structs import Field, Struct

_RETURN, _ADDRESS = 0x00 << 24, 0x01 << 24
_BY_SIZE = {1: 0x01, 2: 0x02, 4: 0x03, 8: 0x04}
_STRING, _BOUNDED_STRING, _SEQUENCE, _ARRAY = 0x05, 0x06, 0x07, 0x08
_STRUCT, _BOUNDED_SEQUENCE, _EXTERNAL, _BOOL = 0x0A, 0x0B, 0x0D, 0x0E
_FLOATING, _SIGNED = 1 << 1, 1 << 2
_POINTER = 8
_SEQUENCE_SIZE = 24  # of dds_sequence_t: two uint32, a pointer, a bool
_FARTHEST = 0x7FFF  # a jump within a program


@dataclass(frozen=True)
class Program:
    """A type's instructions, and the size and alignment of the C struct they would fill."""

    words: tuple[int, ...]
    size: int
    alignment: int


@dataclass(frozen=True)
class _Layout:
    offsets: tuple[int, ...]
    size: int
    alignment: int


def program(struct: Struct) -> Program:
    """The program of a message type.

    Raises:
        ValueError: it is too large for one.
    """
    order = _parents_first(struct)
    layouts: dict[str, _Layout] = {}
    for each in reversed(order):
        layouts[each.name] = _layout(each, layouts)
    starts, position = {}, 0
    for each in order:
        starts[each.name] = position
        position += sum(len(_instruction(field, 0, 0, layouts)) for field in each.fields) + 1
    words: list[int] = []
    for each in order:
        for field, offset in zip(each.fields, layouts[each.name].offsets, strict=True):
            jump = starts[field.struct.name] - len(words) if field.struct is not None else 0
            if jump > _FARTHEST:
                raise ValueError(f"{struct.name} is too large for a DDS type")
            words += _instruction(field, offset, jump, layouts)
        words.append(_RETURN)
    top = layouts[struct.name]
    return Program(tuple(words), top.size, top.alignment)


def _parents_first(struct: Struct) -> list[Struct]:
    """It and all inside it, each behind everything that contains it: jumps only lead forward."""
    done: list[Struct] = []

    def visit(each: Struct) -> None:
        if each not in done:
            for field in each.fields:
                if field.struct is not None:
                    visit(field.struct)
            done.append(each)

    visit(struct)
    return done[::-1]


def _layout(struct: Struct, layouts: dict[str, _Layout]) -> _Layout:
    offsets, position, widest = [], 0, 1
    for field in struct.fields:
        size, alignment = _size(field, layouts)
        position += -position % alignment
        offsets.append(position)
        position += size
        widest = max(widest, alignment)
    return _Layout(tuple(offsets), position + -position % widest, widest)


def _size(field: Field, layouts: dict[str, _Layout]) -> tuple[int, int]:
    definition = field.definition
    if definition.shape == "sequence":
        return _SEQUENCE_SIZE, _POINTER
    if field.struct is not None:
        size, alignment = layouts[field.struct.name].size, layouts[field.struct.name].alignment
    elif definition.kind == "string":
        size, alignment = (definition.string_bound + 1, 1) if definition.string_bound else (_POINTER, _POINTER)
    else:
        size = alignment = int(NUMBERS[definition.kind][1:])
    return size * (definition.size if definition.shape == "array" else 1), alignment


def _instruction(field: Field, offset: int, jump: int, layouts: dict[str, _Layout]) -> list[int]:
    definition = field.definition
    code, flags = _code(field)
    bound = [definition.string_bound + 1] if code == _BOUNDED_STRING else []
    inner = layouts[field.struct.name].size if field.struct is not None else 0
    if definition.shape == "single":
        if field.struct is not None:
            return [_ADDRESS | _EXTERNAL << 16 | flags, offset, 3 << 16 | jump]
        return [_ADDRESS | code << 16 | flags, offset, *bound]
    if definition.shape == "array":
        start = [_ADDRESS | _ARRAY << 16 | code << 8 | flags, offset, definition.size]
        if field.struct is not None:
            return [*start, 5 << 16 | jump, inner]
        return [*start, *([0, *bound] if bound else [])]
    kind = _BOUNDED_SEQUENCE if definition.size else _SEQUENCE
    start = [_ADDRESS | kind << 16 | code << 8 | flags, offset, *([definition.size] if definition.size else [])]
    if field.struct is not None:
        return [*start, inner, (len(start) + 2) << 16 | jump]
    return [*start, *bound]


def _code(field: Field) -> tuple[int, int]:
    """The instruction's code of a value or an element, and its flags."""
    definition = field.definition
    if field.struct is not None:
        return _STRUCT, 0
    if definition.kind == "string":
        return (_BOUNDED_STRING if definition.string_bound else _STRING), 0
    if definition.kind == "bool":
        return _BOOL, 0
    letter, size = NUMBERS[definition.kind][0], int(NUMBERS[definition.kind][1:])
    return _BY_SIZE[size], {"f": _FLOATING, "i": _SIGNED, "u": 0}[letter]
