"""Message types from `.msg` text: the language that ROS defines its messages in."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from typing import Any, Literal

INTEGERS = {
    "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2",
    "int32": "i4", "uint32": "u4", "int64": "i8", "uint64": "u8",
}  # fmt: skip
NUMBERS = {"bool": "u1", "byte": "u1", "char": "u1", **INTEGERS, "float32": "f4", "float64": "f8"}
"""Kinds of numbers and how numpy calls them, without byte order. ROS 2's `char` and `byte` are unsigned."""
PACKING = dict(i1="b", u1="B", i2="h", u2="H", i4="i", u4="I", i8="q", u8="Q", f4="f", f8="d")
"""How the struct module calls what numpy calls so."""

_LONGEST_TEXT = 1 << 16  # characters; the largest definitions of ROS have some thousand
_LARGEST_ARRAY = 1 << 20
_TYPE = re.compile(r"([A-Za-z][\w/]*?)(?:<=(\d{1,9}))?(?:\[(<=)?(\d{0,9})\])?", re.ASCII)
_NAME = re.compile(r"[a-z](_?[a-z0-9])*_?", re.ASCII)
_CONSTANT = re.compile(r"[A-Z](_?[A-Z0-9])*_?", re.ASCII)
_ELEMENT = re.compile(r"""\"[^\"]*\"|'[^']*'|[^,\s]+""")

Shape = Literal["single", "array", "sequence"]


class DefinitionError(ValueError):
    """The text is no message definition; says which line."""


@dataclass(frozen=True)
class FieldDefinition:
    """One field.

    Attributes:
        kind: of the value or of its elements: a key of NUMBERS, `string`, or a message such as `std_msgs/msg/Header`.
        size: of an array its length, of a sequence its bound, 0 for none.
        string_bound: the most bytes of a string, 0 for any number.
        default: as the definition gives it, else None.
    """

    name: str
    kind: str
    shape: Shape = "single"
    size: int = 0
    string_bound: int = 0
    default: Any = None


@dataclass(frozen=True)
class Definition:
    """A message type as one `.msg` file defines it."""

    name: str
    fields: tuple[FieldDefinition, ...]
    constants: dict[str, Any] = field(default_factory=dict)
    text: str = ""


def parse_definition(text: str, name: str) -> Definition:
    """The message type `name`, such as `sensor_msgs/msg/Image`, from the text of its `.msg` file.

    Raises:
        DefinitionError: not in the language, or of a kind this codec does not have (`wstring`).
    """
    if len(text) > _LONGEST_TEXT:
        raise DefinitionError(f"{name} has {len(text)} characters, more than {_LONGEST_TEXT}")
    package = name.partition("/")[0]
    fields: list[FieldDefinition] = []
    constants: dict[str, Any] = {}
    for number, line in enumerate(text.splitlines(), 1):
        code = _without_comment(line)
        if not code:
            continue
        try:
            declared, rest = (*code.split(None, 1), "")[:2]
            found = _field(declared, rest, package, constants)
        except (ValueError, SyntaxError) as error:
            raise DefinitionError(f"{name}, line {number}: {code!r}: {error}") from error
        if found is not None:
            fields.append(found)
    names = [each.name for each in fields]
    if len(set(names)) < len(names):
        raise DefinitionError(f"{name} has two fields of the same name among {', '.join(names)}")
    return Definition(name, tuple(fields), constants, text)


def _without_comment(line: str) -> str:
    quote = ""
    for place, letter in enumerate(line):
        if letter == "#" and not quote:
            return line[:place].strip()
        if letter in "\"'" and quote in ("", letter):
            quote = "" if quote else letter
    return line.strip()


def _field(declared: str, rest: str, package: str, constants: dict[str, Any]) -> FieldDefinition | None:
    """A field, or None where the line is a constant, which is added to `constants`."""
    match = _TYPE.fullmatch(declared)
    if not match:
        raise ValueError(f"{declared!r} is no type")
    base, string_bound, bounded, size = match.groups()
    kind = _kind(base, package)
    if string_bound and kind != "string":
        raise ValueError("only a string can be bounded like that")
    name, equals, value = (part.strip() for part in rest.partition("="))
    if equals and _CONSTANT.fullmatch(name):
        if size is not None or (kind != "string" and kind not in NUMBERS):
            raise ValueError("a constant is a number or a string")
        constants[name] = _value(kind, value)
        return None
    name, _, default = (part.strip() for part in rest.partition(" "))
    if not _NAME.fullmatch(name):
        raise ValueError(f"{name!r} is no name of a field")
    shape: Shape = "single" if size is None else "array" if size and not bounded else "sequence"
    length = int(size or 0)
    if length > _LARGEST_ARRAY or (bounded and not length) or (shape == "array" and not length):
        raise ValueError(f"a length of {length}")
    return FieldDefinition(
        name, kind, shape, length, int(string_bound or 0), _default(kind, shape, default) if default else None
    )


def _kind(base: str, package: str) -> str:
    if base in NUMBERS or base == "string":
        return base
    if base == "wstring":
        raise ValueError("wstring is not supported")
    parts = base.split("/")
    if parts == ["Header"]:
        return "std_msgs/msg/Header"
    if len(parts) == 1 and base[0].isupper():
        return f"{package}/msg/{base}"
    if len(parts) == 2 or (len(parts) == 3 and parts[1] == "msg"):
        return f"{parts[0]}/msg/{parts[-1]}"
    raise ValueError(f"{base!r} is no type")


def _default(kind: str, shape: Shape, text: str) -> Any:
    if shape == "single":
        return _value(kind, text)
    if not (text.startswith("[") and text.endswith("]")):
        raise ValueError("the default of an array or a sequence is a list")
    return [_value(kind, each) for each in _ELEMENT.findall(text[1:-1])]


def _value(kind: str, text: str) -> Any:
    if kind == "string":
        return ast.literal_eval(text) if text[:1] in ("'", '"') and text[-1:] == text[:1] else text
    if kind == "bool":
        if text.lower() not in ("true", "1", "false", "0"):
            raise ValueError(f"{text!r} is no bool")
        return text.lower() in ("true", "1")
    if kind in ("float32", "float64"):
        return float(text)
    if kind not in NUMBERS:
        raise ValueError("a message has no default")
    return int(text, 0)
