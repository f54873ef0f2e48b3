"""Clocks of transports: the machine's, and one that only moves when told."""

from __future__ import annotations

import time


class SystemClock:
    """The machine's own."""

    def now(self) -> int:
        """CLOCK_MONOTONIC, the same for all processes of this machine."""
        return time.monotonic_ns()

    def wall(self) -> int:
        return time.time_ns()


class ManualClock:
    """Stands still until `advance` is called: for tests and replay.

    Attributes:
        wall_offset_ns: `wall()` minus `now()`; change it to play a clock that somebody sets.
    """

    def __init__(self, *, start_ns: int = 1_000_000_000, wall_offset_ns: int = 1_700_000_000_000_000_000) -> None:
        self._now = start_ns
        self.wall_offset_ns = wall_offset_ns

    def now(self) -> int:
        return self._now

    def wall(self) -> int:
        return self._now + self.wall_offset_ns

    def advance(self, duration_ns: int) -> None:
        """Move on; never back."""
        if duration_ns < 0:
            raise ValueError(f"duration_ns must not be negative, got {duration_ns}")
        self._now += duration_ns
