"""Keeping a rate: absolute deadlines, sleep most of the way, spin the rest."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

_SPIN_NS = 400_000  # sleeping wakes up to 0.2 ms late on an idle machine
_KEPT = 4096
_NS = 1_000_000_000


class Pacer(Protocol):
    """What tells the loop when to begin a cycle."""

    def wait(self, deadline_ns: int) -> int:
        """Return the time on the transport's clock, at or after `deadline_ns`."""


class SystemPacer:
    """CLOCK_MONOTONIC: an absolute deadline, so that lateness does not add up.

    Args:
        spin_ns: how long before the deadline to stop sleeping; 0 saves a processor's time and costs about 0.15 ms.
    """

    def __init__(self, *, spin_ns: int = _SPIN_NS) -> None:
        self._spin_ns = spin_ns

    def wait(self, deadline_ns: int) -> int:
        asleep = deadline_ns - self._spin_ns - time.monotonic_ns()
        if asleep > 0:
            time.sleep(asleep / _NS)
        while (now := time.monotonic_ns()) < deadline_ns:
            pass
        return now


class Lateness:
    """The last 4096 delays of cycles; how many there were, and the longest of all."""

    def __init__(self) -> None:
        self._recent = np.zeros(_KEPT, np.int64)
        self.count, self.longest_ns = 0, 0

    def add(self, late_ns: int) -> None:
        """One more cycle."""
        self._recent[self.count % _KEPT] = late_ns
        self.count += 1
        self.longest_ns = max(self.longest_ns, late_ns)

    def percentiles(self, *shares: float) -> list[float]:
        """Of the recent ones, ms; zeros before the first."""
        recent = self._recent[: min(self.count, _KEPT)]
        return [0.0 for _ in shares] if not len(recent) else [float(x) / 1e6 for x in np.percentile(recent, shares)]


def next_deadline(deadline_ns: int, now_ns: int, period_ns: int) -> int:
    """The deadline after `deadline_ns` that is not yet past: missed cycles are left out, never made up in a burst."""
    following = deadline_ns + period_ns
    if now_ns < following:
        return following
    return following + (1 + (now_ns - following) // period_ns) * period_ns
