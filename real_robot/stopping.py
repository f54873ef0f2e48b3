"""Ending a process of the robot at the end of its cycle, or of what may be broken off, not in the middle of others."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal to end came while something ran that may be broken off.

    As `KeyboardInterrupt` no `Exception`: nothing that looks for failures takes it for one.
    """


class Stop:
    """Tells whether a signal to end came. For the main thread.

    A second signal is as the first: what must end at once is ended by SIGKILL.
    """

    def __init__(self) -> None:
        self._came = self._may_break_off = False

    def __call__(self) -> bool:
        return self._came

    def note(self, number: int, frame: FrameType | None) -> None:
        """The handler of signals."""
        self._came = True
        if self._may_break_off:
            self._may_break_off = False  # what cleans up now is not broken off by the next one
            raise Stopped

    @contextmanager
    def breaking_off(self) -> Iterator[None]:
        """Within the block a signal raises `Stopped`, at the next line of Python; at once if it came before."""
        self._may_break_off = True
        try:
            if self._came:
                raise Stopped
            yield
        finally:
            self._may_break_off = False


def stop_on_signals() -> Stop:
    """From now on SIGINT and SIGTERM end nothing by themselves; gives what tells whether one came."""
    stop = Stop()
    for number in _SIGNALS:
        signal.signal(number, stop.note)
    return stop


@contextmanager
def stopping_on_signals() -> Iterator[Stop]:
    """As `stop_on_signals`, within the block; afterwards signals do what they did before."""
    before = [signal.getsignal(number) for number in _SIGNALS]
    try:
        yield stop_on_signals()
    finally:
        for number, handler in zip(_SIGNALS, before, strict=True):
            signal.signal(number, handler)
