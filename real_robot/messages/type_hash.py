"""The hash that ROS 2 from Iron on tells message types apart by (REP 2016, version RIHS01).

SHA-256 of the type's description as JSON without defaults, constants and comments, byte for byte
what rosidl_generator_type_description writes.
"""

from __future__ import annotations

import hashlib
import json
from functools import cache
from typing import Any

from embodied.real_robot.messages.definition import FieldDefinition
from embodied.real_robot.messages.structs import Struct

# type_description_interfaces/msg/FieldType; `char` of a .msg file is uint8.
_KINDS = {
    "int8": 2, "uint8": 3, "char": 3, "int16": 4, "uint16": 5, "int32": 6, "uint32": 7, "int64": 8, "uint64": 9,
    "float32": 10, "float64": 11, "bool": 15, "byte": 16, "string": 17,
}  # fmt: skip
_NESTED, _BOUNDED_STRING = 1, 21
_ARRAY, _BOUNDED_SEQUENCE, _SEQUENCE = 48, 96, 144


@cache
def type_hash(struct: Struct) -> str:
    """Such as `RIHS01_d31d41a9...`."""
    described = {
        "type_description": _described(struct),
        "referenced_type_descriptions": [_described(each) for _, each in sorted(struct.referenced().items())],
    }
    text = json.dumps(described, ensure_ascii=True, separators=(", ", ": "))
    return f"RIHS01_{hashlib.sha256(text.encode()).hexdigest()}"


def _described(struct: Struct) -> dict[str, Any]:
    fields = [{"name": field.name, "type": _type(field.definition)} for field in struct.fields]
    return {"type_name": struct.name, "fields": fields}


def _type(field: FieldDefinition) -> dict[str, Any]:
    nested = field.kind not in _KINDS
    number = _NESTED if nested else _BOUNDED_STRING if field.string_bound else _KINDS[field.kind]
    if field.shape == "array":
        number += _ARRAY
    elif field.shape == "sequence":
        number += _BOUNDED_SEQUENCE if field.size else _SEQUENCE
    return {
        "type_id": number,
        "capacity": field.size,
        "string_capacity": field.string_bound,
        "nested_type_name": field.kind if nested else "",
    }
