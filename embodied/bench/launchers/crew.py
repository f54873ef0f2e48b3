"""The contract between the schedule and those who do the work, and what a worker does with an item."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from embodied.bench.work_list import Item
from embodied.core.errors import UserError
from embodied.core.run_folder import Stopwatch


class Runner(Protocol):
    """Does items, one after the other, and keeps what they share; lives in a worker."""

    def __call__(self, item: Item, /) -> None:
        """Do an item; raises what went wrong."""
        ...

    def close(self) -> None: ...


class MakeRunner(Protocol):
    """Makes the runner of a worker; can be sent to another process, on another machine too."""

    def __call__(self, worker: int, /) -> Runner: ...


@dataclass(frozen=True, kw_only=True)
class Report:
    """What came of an item.

    Args:
        worker: that had it.
        key: of the item.
        seconds: that it took.
        error: what went wrong, one line; empty if nothing did.
        lost: why the worker is gone, or its answer; empty if it is not. Then it is not known what it had done.
    """

    worker: int
    key: str
    seconds: float = 0.0
    error: str = ""
    lost: str = ""


class Crew(Protocol):
    """Workers that take items and report on each.

    Attributes:
        size: workers, numbered from 0.
        batch: items that a worker is given at once, at most.
    """

    size: int
    batch: int

    def ready(self, worker: int) -> bool:
        """Whether an idle worker can be given items now; one that is still starting cannot."""
        ...

    def send(self, worker: int, items: Sequence[Item]) -> None:
        """Have an idle worker do items."""
        ...

    def wait(self, timeout_s: float) -> list[Report]:
        """What has been reported, waiting for the first report at most so long."""
        ...

    def close(self, *, at_once: bool) -> None:
        """End all workers: at once, or idle ones."""
        ...


def perform(runner: Runner, item: Item, worker: int) -> Report:
    """Let a runner do an item, and report on it whatever it raises."""
    watch = Stopwatch()
    error = ""
    try:
        runner(item)
    except Exception as raised:  # a cell that breaks must not take the others with it
        error = reason_of(raised)
    return Report(worker=worker, key=item.key, seconds=watch.seconds, error=error)


def reason_of(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
