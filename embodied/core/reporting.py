"""A reporter that shows nothing, for library use and tests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from embodied.core.protocols import Item


class SilentReporter:
    """Implements `protocols.Reporter` without output."""

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        yield

    def track(self, items: Iterable[Item], *, total: int, description: str, done: int = 0) -> Iterator[Item]:
        yield from items

    def note(self, text: str) -> None:
        return None
