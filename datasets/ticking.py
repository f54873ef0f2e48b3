"""Progress of work that comes in portions of frames rather than as a list of items."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager

from embodied.core.protocols import Reporter


@contextmanager
def ticking(reporter: Reporter, *, total: int, description: str, done: int = 0) -> Iterator[Callable[[int], None]]:
    """Shows `done` of `total`, and gives a function that adds a number to what is done."""

    def track() -> Generator[
        int, None, None
    ]:  # a generator of our own, which can be closed whatever the reporter returns
        yield from reporter.track(range(done, total), total=total, description=description, done=done)

    with closing(track()) as ticks:
        next(ticks, None)  # shows the bar before the first portion

        def advance(count: int) -> None:
            for _ in range(count):
                next(ticks, None)

        yield advance
