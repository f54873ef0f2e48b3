"""Messages as Python values: a small class for each message type, made from its definition."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from embodied.real_robot.messages.definition import NUMBERS
from embodied.real_robot.messages.structs import DURATION, HEADER, TIME, Field, Struct, standard_definitions

NS = 1_000_000_000


class Message:
    """A message; its fields are attributes, and keyword arguments that default to zero, empty or the definition's.

    Numbers are int, float or bool, text is str; several numbers are an array of numpy [n] (a fixed number of them has
    that length), several strings or messages a list. What was decoded may be a view of the packet that is read-only.
    """

    __slots__ = ()
    struct: ClassVar[Struct]

    if TYPE_CHECKING:  # the classes are made while running; a type checker knows no fields of them

        def __init__(self, *values: Any, **fields: Any) -> None: ...

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Message) or other.struct is not self.struct:
            return NotImplemented
        names = (field.name for field in self.struct.fields)
        return all(_same(getattr(self, name), getattr(other, name)) for name in names)

    __hash__ = None  # type: ignore[assignment]


def _same(one: Any, two: Any) -> bool:
    if isinstance(one, np.ndarray) or isinstance(two, np.ndarray):
        one, two = np.asarray(one), np.asarray(two)
        return np.array_equal(one, two, equal_nan=one.dtype.kind == "f" and two.dtype.kind == "f")
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(map(_same, one, two))
    return bool(one == two or (one != one and two != two))  # not a number equals itself here


_CLASSES: dict[Struct, type[Message]] = {}


def class_of(struct: Struct) -> type[Message]:
    """The class of the messages of one type, the same for the same struct."""
    if struct not in _CLASSES:
        fields = [(field.name, Any, dataclasses.field(default_factory=_default(field))) for field in struct.fields]
        made = dataclasses.make_dataclass(
            struct.name.rpartition("/")[2], fields, bases=(Message,), slots=True, eq=False,
            namespace={"struct": struct, "__doc__": f"A {struct.name}.", "__module__": __name__},
        )  # fmt: skip
        _CLASSES[struct] = made
    return _CLASSES[struct]


def message_type(name: str) -> type[Message]:
    """The class of a message type that comes with this package, such as `sensor_msgs/msg/JointState`.

    Raises:
        UsageError: no such type.
    """
    return class_of(standard_definitions()[name])


def _default(field: Field) -> Any:
    """A function that gives a new default value."""
    definition = field.definition
    default, struct = definition.default, field.struct
    if struct is not None:
        made = class_of(struct)
        if definition.shape == "single":
            return made
        return lambda: [made() for _ in range(definition.size if definition.shape == "array" else 0)]
    length = definition.size if definition.shape == "array" else 0
    if definition.kind == "string":
        if definition.shape == "single":
            return lambda: default or ""
        return lambda: list(default or [""] * length)
    dtype = np.dtype("?" if definition.kind == "bool" else NUMBERS[definition.kind])
    if definition.shape == "single":
        return lambda: dtype.type(0 if default is None else default).item()
    return lambda: np.zeros(length, dtype) if default is None else np.array(default, dtype)


def time_message(stamp_ns: int) -> Message:
    """A builtin_interfaces/msg/Time of nanoseconds since 1970 (`Clock.wall()`)."""
    return message_type(TIME)(sec=stamp_ns // NS, nanosec=stamp_ns % NS)


def duration_message(seconds: float) -> Message:
    """A builtin_interfaces/msg/Duration, to the nanosecond."""
    length_ns = round(seconds * NS)
    return message_type(DURATION)(sec=length_ns // NS, nanosec=length_ns % NS)


def header_message(stamp_ns: int, frame_id: str = "") -> Message:
    """A std_msgs/msg/Header of nanoseconds since 1970."""
    return message_type(HEADER)(stamp=time_message(stamp_ns), frame_id=frame_id)


def nanoseconds(time: Message) -> int:
    """Those of a Time or a Duration."""
    return int(time.sec) * NS + int(time.nanosec)
