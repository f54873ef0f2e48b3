"""Ending a process of the robot at the end of its cycle, not in the middle of one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def stop_on_signals() -> Callable[[], bool]:
    """From now on SIGINT and SIGTERM end nothing by themselves; gives what tells whether one came.

    For the main thread. A second signal is as the first: what must end at once is ended by SIGKILL.
    """
    came: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        came.append(number)

    for number in _SIGNALS:
        signal.signal(number, note)
    return lambda: bool(came)


@contextmanager
def stopping_on_signals() -> Iterator[Callable[[], bool]]:
    """As `stop_on_signals`, within the block; afterwards signals do what they did before."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    try:
        yield stop_on_signals()
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
