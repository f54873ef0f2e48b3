"""Progress of work on frames: how many per second, and the time left; a line now and then where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeRemainingColumn
from rich.progress import Task as RichTask
from rich.text import Text

from embodied.cli.reporter import RichReporter
from embodied.core.protocols import Item

LINE_EVERY_S = 10.0


class RateColumn(ProgressColumn):
    """`214 frames/s`, over the last seconds."""

    def render(self, task: RichTask) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.description}/s" if speed else "", style="progress.data.speed")


class FramesReporter(RichReporter):
    """Implements `core.protocols.Reporter`; `description` of `track` is what is counted, such as frames."""

    def _columns(self) -> Sequence[ProgressColumn]:
        return (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            RateColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )

    def _without_bar(self, items: Iterable[Item], *, total: int, description: str, done: int) -> Iterator[Item]:
        """A line every few seconds."""
        started = shown = monotonic()
        for count, item in enumerate(items, start=1):
            yield item
            now = monotonic()
            if now - shown >= LINE_EVERY_S:
                shown, rate = now, count / (now - started)
                left = (total - done - count) / rate
                self.note(
                    f"  {done + count:,} of {total:,} {description}, {rate:,.0f} {description}/s, {left:,.0f} s left"
                )
