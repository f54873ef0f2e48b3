"""ROS 1's names, texts and checksums of message types, from the definitions of ROS 2.

The definitions that robots need most say the same in both, but for time, duration and the header. Where a definition
changed (sensor_msgs/CameraInfo), the checksum is another than ROS 1's and its nodes refuse the topic.
"""

from __future__ import annotations

import hashlib
from functools import cache

from embodied.real_robot.messages.structs import DURATION, HEADER, TIME, Field, Struct

_PRIMITIVE = {TIME: "time", DURATION: "duration"}
_RULE = "=" * 80


def ros1_name(name: str) -> str:
    """`sensor_msgs/Image` of `sensor_msgs/msg/Image`."""
    package, _, message = name.split("/")
    return f"{package}/{message}"


@cache
def md5sum(struct: Struct) -> str:
    """What ROS 1's nodes compare before they talk about a topic, 32 hex digits."""
    lines = [*_constants(struct), *_fields(struct, sums=True)]
    return hashlib.md5("\n".join(lines).encode(), usedforsecurity=False).hexdigest()


def full_text(struct: Struct) -> str:
    """The definition with those inside it, as ROS 1 sends it and writes it into bags."""
    parts = ["\n".join([*_constants(struct), *_fields(struct, sums=False)]) + "\n"]
    for name, each in struct.referenced().items():
        if name not in _PRIMITIVE:
            lines = [f"MSG: {ros1_name(name)}", *_constants(each), *_fields(each, sums=False)]
            parts.append("\n".join([_RULE, *lines]) + "\n")
    return "".join(parts)


def _fields(struct: Struct, *, sums: bool) -> list[str]:
    sequence = ["uint32 seq"] if struct.name == HEADER else []
    return sequence + [f"{_type(field, sums=sums)} {field.name}" for field in struct.fields if _real(struct)]


def _real(struct: Struct) -> bool:
    """Whether it has fields of its own: ROS 2 puts one into an empty message."""
    return bool(struct.definition.fields)


def _type(field: Field, *, sums: bool) -> str:
    definition = field.definition
    length = str(definition.size) if definition.shape == "array" else ""
    brackets = "" if definition.shape == "single" else f"[{length}]"
    if field.struct is None or field.struct.name in _PRIMITIVE:
        return _PRIMITIVE.get(definition.kind, definition.kind) + brackets
    return md5sum(field.struct) if sums else ros1_name(field.struct.name) + brackets


def _constants(struct: Struct) -> list[str]:
    """As they stand in the text, whose very letters the checksum counts."""
    found = []
    for line in struct.definition.text.splitlines():
        declared, equals, value = line.partition("=")
        words = declared.split()
        if equals and len(words) == 2 and words[1] in struct.constants:
            value = value.strip() if words[0] == "string" else value.partition("#")[0].strip()
            found.append(f"{words[0]} {words[1]}={value}")
    return found
