"""What a person sees of a benchmark: one bar over all cells with the time left, and a line for each that has ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from embodied.bench.bench_runs import clock, seconds_left
from embodied.bench.work_list import CELL, DONE, FAILED, WAITING, Item

MARKS = {DONE: "[green]✓[/]", FAILED: "[red]✗[/]", WAITING: "[yellow]↻[/]"}


class BenchProgress:
    """Implements `Watcher`; a context manager, so that the bar is taken away whatever happens."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._states: dict[str, str] = {}
        self._durations: list[float] = []
        self._running: Counter[str] = Counter()
        self._workers = 1
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("cells", total=None, left="")

    def __enter__(self) -> BenchProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def begin(self, items: Sequence[Item], states: Sequence[str], workers: int) -> None:
        self._states = {item.key: state for item, state in zip(items, states, strict=True)}
        self._workers = workers
        ended = sum(state in (DONE, FAILED) for state in states)
        self._bar.update(self._task, total=len(items), completed=ended)
        workers_text = "1 worker" if workers == 1 else f"{workers} workers"
        self._console.print(f"{len(items) - ended} of {len(items)} to do, {workers_text}", highlight=False)

    def started(self, item: Item) -> None:
        self._running[item.encoder or item.store] += 1
        self.tick()

    def ended(self, item: Item, *, status: str, seconds: float, reason: str) -> None:
        self._states[item.key] = status
        self._running[item.encoder or item.store] -= 1
        if status == DONE and item.kind == CELL:
            self._durations.append(seconds)
        done = sum(state in (DONE, FAILED) for state in self._states.values())
        self._bar.update(self._task, completed=done)
        again = ", once more" if status == WAITING else ""
        told = f": {escape(reason)}{again}" if reason else ""
        line = f"{MARKS[status]} {escape(item.key)}  {seconds:.1f} s{told}"
        if not self._console.is_terminal:
            line += f"  ({', '.join(filter(None, [f'{done} of {len(self._states)}', self._left()]))})"
        self._console.print(line, highlight=False, soft_wrap=True)

    def tick(self) -> None:
        names = ", ".join(name.rpartition("/")[2] for name, count in self._running.items() if count)
        self._bar.update(self._task, left=escape(f"{self._left()}  {names}"))

    def _left(self) -> str:
        waiting = sum(state not in (DONE, FAILED) for state in self._states.values())
        left = seconds_left(self._durations, waiting, self._workers)
        return "" if left is None else f"about {clock(left)} left"
