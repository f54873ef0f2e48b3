"""Message types resolved down to numbers and strings, and where their definitions are found."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError, unknown_name
from embodied.real_robot.messages.definition import (
    NUMBERS,
    Definition,
    DefinitionError,
    FieldDefinition,
    parse_definition,
)

HEADER = "std_msgs/msg/Header"
TIME, DURATION = "builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration"
FILLER = FieldDefinition("structure_needs_at_least_one_member", "uint8")  # what ROS 2 puts into an empty message
_DEEPEST = 32


@dataclass(frozen=True, eq=False)
class Field:
    """One field: what its definition says, and the struct of a kind that is a message."""

    definition: FieldDefinition
    struct: Struct | None

    @property
    def name(self) -> str:
        return self.definition.name


@dataclass(frozen=True, eq=False)
class Struct:
    """A message type with all it contains; the same name gives the same object."""

    name: str
    fields: tuple[Field, ...]
    definition: Definition

    @cached_property
    def smallest(self) -> int:
        """Bytes that a value takes at least, in CDR or ROS 1's serialisation, padding aside; at least 1."""
        return max(1, sum(_smallest(field) for field in self.fields))

    @property
    def constants(self) -> Mapping[str, Any]:
        """Such as `OK` of diagnostic_msgs/msg/DiagnosticStatus."""
        return self.definition.constants

    def referenced(self) -> dict[str, Struct]:
        """The message types inside this one, at any depth, by name."""
        found: dict[str, Struct] = {}
        for field in self.fields:
            if field.struct is not None:
                found |= {field.struct.name: field.struct, **field.struct.referenced()}
        return found

    def full_text(self) -> str:
        """The definition followed by those of the types inside it, as bags carry it (`ros2msg`)."""
        parts = [self.definition.text]
        for name, struct in sorted(self.referenced().items()):
            parts.append(f"{'=' * 80}\nMSG: {name.replace('/msg/', '/')}\n{struct.definition.text}")
        return "".join(part if part.endswith("\n") else f"{part}\n" for part in parts)


def _smallest(field: Field) -> int:
    definition = field.definition
    if definition.shape == "sequence":
        return 4
    return element_size(field) * (definition.size if definition.shape == "array" else 1)


def element_size(field: Field) -> int:
    """Bytes that one element takes at least."""
    if field.struct is not None:
        return field.struct.smallest
    return 4 if field.definition.kind == "string" else int(NUMBERS[field.definition.kind][1:])


class Definitions:
    """Message types by name: those that come with this package, and those of further folders.

    A folder holds `<package>/<Name>.msg`, or `<package>/msg/<Name>.msg` as ROS installs them under `share/`.
    """

    def __init__(self, *folders: str | Path) -> None:
        """Raises UserError where a folder is missing or has no definitions."""
        self._paths = dict(_standard_paths())
        self._structs: dict[str, Struct] = {}
        self._own: set[str] = set()
        for folder in map(Path, folders):
            found = _paths(folder)
            if not found:
                raise UserError(f"{folder} has no <package>/<Name>.msg files")
            self._paths |= found
            self._own |= set(found)

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._paths))

    def __getitem__(self, name: str) -> Struct:
        """The type `name`, such as `sensor_msgs/msg/Image`.

        Raises:
            UsageError: no such type.
            UserError: its definition, or one inside it, cannot be read.
        """
        if name not in self._structs:
            if name not in self._paths:
                raise unknown_name("message type", name, self._paths)
            self._resolve(name, ())
        return self._structs[name]

    def _resolve(self, name: str, inside: tuple[str, ...]) -> Struct:
        if name in inside or len(inside) > _DEEPEST:
            raise UserError(f"the message type {name} contains itself")
        if name in self._structs:
            return self._structs[name]
        if name not in self._paths:
            raise UserError(f"the message type {name}, which {inside[-1]} contains, has no .msg file")
        if self._own and name not in self._own:
            standard = standard_definitions()[name]
            if not self._own & set(standard.referenced()):
                self._structs[name] = standard  # the same object: messages of either can be used together
                return standard
        path = self._paths[name]
        try:
            definition = parse_definition(path.read_text(encoding="utf-8"), name)
        except (OSError, UnicodeDecodeError, DefinitionError) as error:
            raise UserError(f"{path} cannot be read: {error}") from error
        fields = []
        for each in definition.fields or (FILLER,):
            basic = each.kind in NUMBERS or each.kind == "string"
            fields.append(Field(each, None if basic else self._resolve(each.kind, (*inside, name))))
        self._structs[name] = Struct(name, tuple(fields), definition)
        return self._structs[name]


def _paths(folder: Path) -> dict[str, Path]:
    paths = (*folder.glob("*/*.msg"), *folder.glob("*/msg/*.msg"))
    named = ((path.relative_to(folder).parts[0], path) for path in paths)
    return {f"{package}/msg/{path.stem}": path for package, path in named if package != "msg"}


@cache
def _standard_paths() -> Mapping[str, Path]:
    return _paths(Path(__file__).parent / "definitions")


@cache
def standard_definitions() -> Definitions:
    """The types that come with this package."""
    return Definitions()
