"""The schedule: gives the items of a work list to a crew until nothing is left, whatever becomes of workers."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Protocol

from embodied.bench.launchers.crew import Crew, Report
from embodied.bench.work_list import DONE, FAILED, RUNNING, WAITING, Item, WorkList

BEAT_S = 5.0
TAKE_UP_S = 15.0
WAIT_S = 1.0


class Watcher(Protocol):
    """Is told how the work goes."""

    def begin(self, items: Sequence[Item], states: Sequence[str], workers: int) -> None:
        """The items of this benchmark and their states, before any of them is given out."""
        ...

    def started(self, item: Item) -> None: ...

    def ended(self, item: Item, *, status: str, seconds: float, reason: str) -> None:
        """`status`: `done`, `failed`, or `waiting` for one that will be tried again."""
        ...

    def tick(self) -> None:
        """About once a second."""
        ...


@dataclass
class Tally:
    """What a run of the schedule took: items that it did, the sum of their seconds, and seconds of workers beside."""

    items: int = 0
    item_seconds: float = 0.0
    idle_seconds: float = 0.0
    overhead_seconds: float = 0.0

    @property
    def overhead(self) -> float:
        """What the schedule adds, starts of processes included, over the sum of the items' seconds."""
        return self.overhead_seconds / self.item_seconds if self.item_seconds else 0.0


@dataclass
class _Desk:
    """What the schedule knows of a worker: `since` when it is busy or idle, and whether there was work for it then."""

    items: dict[str, Item] = field(default_factory=dict)
    last: Item | None = None
    since: float = field(default_factory=time.monotonic)
    starved: bool = False
    spent: float = 0.0


class Schedule:
    """Runs a work list.

    Args:
        work: the list, with the items added.
        items: that are wanted.
        crew: who does them; closed at the end.
        survived: whether what a lost worker was at was done, by what it left.
        failed: called with keys and the reason when items have failed for good.
        watcher: is told.
    """

    def __init__(
        self,
        work: WorkList,
        items: Sequence[Item],
        crew: Crew,
        *,
        survived: Callable[[str], bool],
        failed: Callable[[Sequence[str], str], None],
        watcher: Watcher,
    ) -> None:
        self._work, self._crew, self._watcher = work, crew, watcher
        self._items = {item.key: item for item in items}
        self._survived, self._failed = survived, failed
        self._desks = [_Desk() for _ in range(crew.size)]
        self.tally = Tally()

    def run(self) -> Tally:
        """Work until every item is done or has failed.

        Raises:
            KeyboardInterrupt: and whatever else; all workers are ended then, and what they were at waits again.
        """
        states = self._work.states()
        self._watcher.begin(list(self._items.values()), [states[key][0] for key in self._items], self._crew.size)
        beat = taken_up = time.monotonic()
        whole = False
        try:
            while self._give_out() or self._others_are_at_it():
                for report in self._crew.wait(WAIT_S) if self._held() else self._pause():
                    self._take(report)
                now = time.monotonic()
                if now - beat > BEAT_S:
                    beat = now
                    self._work.beat()
                if now - taken_up > TAKE_UP_S:
                    taken_up = now
                    self._work.take_up_lost()
                self._watcher.tick()
            whole = True
        finally:
            try:
                self._crew.close(at_once=not whole)
            finally:
                self._work.give_back(self._held())
        return self.tally

    def _held(self) -> list[str]:
        return [key for desk in self._desks for key in desk.items]

    def _give_out(self) -> bool:
        """Give items to idle workers; whether any worker has some."""
        for number, desk in enumerate(self._desks):
            if desk.items or not self._crew.ready(number):
                continue
            batch = self._claim(desk)
            now = time.monotonic()
            if not batch:
                desk.starved = True
                continue
            waited = now - desk.since
            if desk.starved:
                self.tally.idle_seconds += waited
            else:
                self.tally.overhead_seconds += waited
            desk.since, desk.starved, desk.spent = now, False, 0.0
            for item in batch:
                self._watcher.started(item)
            self._crew.send(number, batch)
        return bool(self._held())

    def _claim(self, desk: _Desk) -> list[Item]:
        """Items for a worker. One that a worker was lost with goes alone, so that it takes no others with it again."""
        batch: list[Item] = []
        limit = self._crew.batch
        if limit > 1 and not self._crew.mixed:  # at the end there shall be something for everyone
            limit = max(1, min(limit, ceil(self._work.waiting() / self._crew.size)))
        while len(batch) < limit:
            beside = None if self._crew.mixed or not batch else batch[0]
            item = self._work.claim(after=desk.last, beside=beside)
            if item is None:
                break
            if item.losses and batch:
                self._work.give_back([item.key])
                break
            batch.append(item)
            desk.last = item
            desk.items[item.key] = item
            if item.losses:
                break
        return batch

    def _others_are_at_it(self) -> bool:
        """Whether items are left: that another process has claimed, or that wait for a worker to be ready."""
        return any(status in (WAITING, RUNNING) for status, _ in self._work.states().values())

    def _pause(self) -> list[Report]:
        time.sleep(WAIT_S)
        return []

    def _take(self, report: Report) -> None:
        desk = self._desks[report.worker]
        item = desk.items.pop(report.key)
        status, reason = DONE, ""
        if (report.lost and not self._survived(item.key)) or report.error:
            reason = report.error or report.lost
            gone = self._work.fail(item.key, reason, lost=not report.error)
            status = FAILED if gone else WAITING
            if gone:
                self._failed(gone, reason)
        else:
            self._work.finish(item.key, report.seconds)
        self.tally.items += 1
        self.tally.item_seconds += report.seconds
        desk.spent += report.seconds
        now = time.monotonic()
        if not desk.items:
            if not report.lost:  # what a lost worker did is no overhead of the schedule's
                self.tally.overhead_seconds += max(0.0, now - desk.since - desk.spent)
            desk.since = now
        self._watcher.ended(item, status=status, seconds=report.seconds, reason=reason)
