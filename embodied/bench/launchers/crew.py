"""The contract between the schedule and those who do the work, and what a worker does with an item."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from embodied.bench.work_list import Item
from embodied.core.errors import UserError
from embodied.core.run_folder import Stopwatch


class Runner(Protocol):
    """Does items, one after the other, and keeps what they share; lives in a worker."""

    def __call__(self, item: Item, /) -> None:
        """Do an item; raises what went wrong."""
        ...

    def close(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Done:
    """What became of one of several items: how long it took, its share of what was common; `error` if it failed."""

    key: str
    seconds: float
    error: Exception | None = None


@runtime_checkable
class TeamRunner(Protocol):
    """A `Runner` that can do several items at once."""

    def together(self, items: Sequence[Item], /) -> Iterator[Done]:
        """Do items; tells of each as soon as it is done. Does not raise for one that fails."""
        ...


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
        mixed: whether these may be any, which it does one after the other; else they are of one team.
    """

    size: int
    batch: int
    mixed: bool

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


def perform_all(runner: Runner, items: Sequence[Item], worker: int) -> Iterator[Report]:
    """Let a runner do items, together where it can, and report on each."""
    if len(items) > 1 and isinstance(runner, TeamRunner):
        for done in runner.together(items):
            error = "" if done.error is None else reason_of(done.error)
            yield Report(worker=worker, key=done.key, seconds=done.seconds, error=error)
    else:
        for item in items:
            yield perform(runner, item, worker)


def reason_of(error: Exception) -> str:
    """What went wrong, in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"
