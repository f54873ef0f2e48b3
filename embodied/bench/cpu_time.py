"""Processor time of a worker with everything that it started, to say what a phase of a cell cost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def cpu_seconds() -> float:
    """User and system time of this process and its descendants, since it began.

    Descendants that run are seen where the kernel shows them (Linux); elsewhere they count once they have ended.
    """
    own = os.times()
    running = sum(_seconds_of(process) for process in _descendants(os.getpid()))
    return own.user + own.system + own.children_user + own.children_system + running


class CpuWatch:
    """Processor time of this process and its descendants since it was made."""

    def __init__(self) -> None:
        self._start = cpu_seconds()

    @property
    def seconds(self) -> float:
        return max(0.0, cpu_seconds() - self._start)


def _descendants(process: int) -> Iterator[int]:
    for children in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            found = children.read_text().split()
        except OSError:  # the thread or the process has just ended
            continue
        for child in found:
            yield int(child)
            yield from _descendants(int(child))


def _seconds_of(process: int) -> float:
    """Its own time and that of its children that have ended; 0 where it has just ended itself."""
    try:
        text = Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return 0.0
    ticks = text.rpartition(")")[2].split()[11:15]  # utime, stime, cutime, cstime
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
