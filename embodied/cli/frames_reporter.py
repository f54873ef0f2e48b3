"""Progress of work on frames: how many per second, and the time left; a line now and then where nobody watches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from time import monotonic

from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
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

    def track(self, items: Iterable[Item], *, total: int, description: str, done: int = 0) -> Iterator[Item]:
        """Yields the items under a bar that disappears at the end."""
        if not self.console.is_terminal:
            yield from self._with_lines(items, total=total, description=description, done=done)
            return
        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.description}"),
            RateColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(description, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)

    def _with_lines(self, items: Iterable[Item], *, total: int, description: str, done: int) -> Iterator[Item]:
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
