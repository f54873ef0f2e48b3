"""Reading a section of a YAML file so that each mistake in it gives one message."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.real_robot.transports.transport import check_topic, check_type

_REQUIRED: Any = object()


class Section:
    """A mapping and where it stands; what is wrong with it is collected in `problems`.

    A value that is missing or wrong is reported and a stand-in returned, so that reading goes on: nothing that was
    read may be used before `problems` is known to be empty.
    """

    def __init__(self, content: Any, path: str, problems: list[str]) -> None:
        self.path, self.problems = path, problems
        if not isinstance(content, dict):
            self.problem("", f"expected a mapping, got {type(content).__name__}")
            content, self.problems = {}, []  # what follows from it is no mistake of its own
        self._content: dict[str, Any] = {str(key): value for key, value in content.items()}
        self._known: list[str] = []

    def problem(self, key: str, what: str) -> None:
        """Note a mistake at `key`, or in the section itself where it is empty."""
        place = ".".join(part for part in (self.path, key) if part) or "the file"
        self.problems.append(f"{place}: {what}")

    def has(self, key: str) -> bool:
        """Whether an optional `key` is there and not null."""
        self._known.append(key)
        return self._content.get(key) is not None

    def section(self, key: str) -> Section:
        """The section at `key`; empty where it is missing, so that what must be in it is asked for."""
        self._known.append(key)
        path = f"{self.path}.{key}" if self.path else key
        return Section(self._content.get(key) or {}, path, self.problems)

    def sections(self, key: str) -> Iterator[tuple[str, Section]]:
        """Name and section of each entry at `key`, in the order of the file."""
        outer = self.section(key)
        for name in outer._content:
            yield name, outer.section(name)

    def number(
        self, key: str, *, default: float | None = _REQUIRED, least: float = -math.inf, above: float = -math.inf
    ) -> float:
        """A finite number, or `.inf` where that is the default; not below `least` and greater than `above`."""
        value = self._take(key, default)
        if value is _REQUIRED:
            return 1.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(key, f"expected a number, got {value!r}")
            return 1.0
        if not math.isfinite(value) and value != default:
            self.problem(key, f"expected a finite number, got {value!r}")
        elif value < least or value <= above:
            bound = f"at least {least:g}" if value < least else f"greater than {above:g}"
            self.problem(key, f"must be {bound}, got {value:g}")
        return float(value)

    def whole(self, key: str, *, default: int = _REQUIRED, least: int, most: int) -> int:
        """A whole number in a range."""
        value = self._take(key, default)
        if value is _REQUIRED:
            return least
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.problem(key, f"expected a whole number in {least} .. {most}, got {value!r}")
            return least
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value = self._take(key, default)
        if not isinstance(value, bool):
            self.problem(key, f"expected true or false, got {value!r}")
        return bool(value)

    def text(self, key: str, *, default: str = _REQUIRED) -> str:
        """A text that is not empty."""
        value = self._take(key, default)
        if value is _REQUIRED:
            return ""
        if not isinstance(value, str) or not (value or value == default):
            self.problem(key, f"expected a text, got {value!r}")
            return ""
        return value

    def choice(self, key: str, valid: Sequence[str], *, default: str = _REQUIRED) -> str:
        """One of `valid`."""
        value = self.text(key, default=default)
        if value and value not in valid:
            self.problem(key, str(unknown_name("choice", value, valid)))
        return value if value in valid else valid[0]

    def topic(self, key: str) -> str:
        """An absolute ROS topic."""
        return self._checked(key, check_topic)

    def message_type(self, key: str, valid: Sequence[str]) -> str:
        """A message type, one of `valid`."""
        value = self._checked(key, check_type)
        if value and value not in valid:
            self.problem(key, f"must be {' or '.join(valid)}, got {value}")
        return value if value in valid else valid[0]

    def numbers(self, key: str, count: int) -> tuple[float, ...]:
        """A list of `count` finite numbers."""
        value = self._take(key, _REQUIRED)
        if value is _REQUIRED:
            return tuple(map(float, range(count)))
        good = isinstance(value, list) and len(value) == count
        if not good or not all(isinstance(x, int | float) and math.isfinite(x) for x in value):
            self.problem(key, f"expected a list of {count} finite numbers, got {value!r}")
            return tuple(map(float, range(count)))
        return tuple(float(x) for x in value)

    def names(self, key: str, valid: Sequence[str], *, default: Sequence[str]) -> tuple[str, ...]:
        """A list of some of `valid`."""
        value = self._take(key, list(default))
        if not isinstance(value, list):
            self.problem(key, f"expected a list of names, got {value!r}")
            return ()
        for name in value:
            if name not in valid:
                self.problem(key, str(unknown_name("name", str(name), valid)))
        return tuple(str(name) for name in value)

    def mapping(self, key: str) -> dict[str, Any]:
        """An optional mapping that somebody else checks."""
        self._known.append(key)
        value = self._content.get(key) or {}
        if not isinstance(value, dict):
            self.problem(key, f"expected a mapping, got {value!r}")
            return {}
        return {str(name): item for name, item in value.items()}

    def finish(self) -> None:
        """Report keys that nobody asked for."""
        for key in self._content:
            if key not in self._known:
                self.problem("", str(unknown_name("key", key, self._known)))

    def _take(self, key: str, default: Any) -> Any:
        self._known.append(key)
        value = self._content.get(key)
        if value is None and default is _REQUIRED:
            self.problem(key, "missing")
        return default if value is None else value

    def _checked(self, key: str, check: Any) -> str:
        value = self.text(key)
        try:
            if value:
                check(value)
        except UsageError as error:
            self.problem(key, str(error))
            return ""
        return value
