"""What the schedule of a benchmark costs: items that only wait, through the work list and local worker processes.

python benchmarks/bench_scheduler.py                 # 1 and 2 workers, 400 items of 50 ms; a list of 20,000 items
python benchmarks/bench_scheduler.py 1000 0.02       # so many items, of so many seconds each
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embodied.bench.launchers.local import LocalCrew
from embodied.bench.schedule import Schedule, Tally
from embodied.bench.work_list import Item, WorkList

CELL_S = 30.0  # what a cell of suite=quick takes
LONG_LIST = 20_000


@dataclass(frozen=True)
class MakeWaiting:
    """Makes runners whose items take some seconds of waiting."""

    seconds: float

    def __call__(self, worker: int) -> Waiting:
        return Waiting(self.seconds)


@dataclass(frozen=True)
class Waiting:
    seconds: float

    def __call__(self, item: Item) -> None:
        time.sleep(self.seconds)

    def close(self) -> None:
        pass


class Nobody:
    """A watcher that shows nothing."""

    def begin(self, items: Sequence[Item], states: Sequence[str], workers: int) -> None: ...

    def started(self, item: Item) -> None: ...

    def ended(self, item: Item, *, status: str, seconds: float, reason: str) -> None: ...

    def tick(self) -> None: ...


def items(count: int) -> list[Item]:
    return [Item(key=f"item{number}", encoder=f"e{number % 8}", store=f"s{number % 5}") for number in range(count)]


def run(count: int, seconds: float, workers: int) -> tuple[Tally, float]:
    """A schedule from the first process's start to the last's end, and its wall seconds."""
    with tempfile.TemporaryDirectory() as folder, WorkList(Path(folder)) as work:
        wanted = items(count)
        work.add(wanted)
        crew = LocalCrew(MakeWaiting(seconds), size=workers)
        started = time.monotonic()
        schedule = Schedule(
            work, wanted, crew, survived=lambda key: False, failed=lambda keys, why: None, watcher=Nobody()
        )
        return schedule.run(), time.monotonic() - started


def claims() -> tuple[float, float]:
    """Milliseconds of a claim and of finishing an item, in a long list."""
    with tempfile.TemporaryDirectory() as folder, WorkList(Path(folder)) as work:
        work.add(items(LONG_LIST))
        claimed, started, last = [], time.monotonic(), None
        for _ in range(100):
            last = work.claim(after=last)
            assert last is not None
            claimed.append(last.key)
        between = time.monotonic()
        for key in claimed:
            work.finish(key, 1.0)
        return (between - started) * 10, (time.monotonic() - between) * 10


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 400
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 0.05
    for workers in (1, 2):
        tally, wall = run(count, seconds, workers)
        each = tally.overhead_seconds / tally.items
        print(
            f"{workers} worker(s): {tally.items} items of {seconds} s in {wall:.1f} s; the schedule added "
            f"{each * 1000:.1f} ms an item, {tally.overhead:.1%} of these, {each / CELL_S:.3%} of {CELL_S:.0f} s cells"
        )
    claim, finish = claims()
    print(f"a list of {LONG_LIST:,} items: {claim:.1f} ms a claim, {finish:.1f} ms to finish one")


if __name__ == "__main__":
    main()
