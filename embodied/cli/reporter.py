"""What a person sees while something runs: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from embodied.bench.open_loop_report import against_trivial, overall_rows
from embodied.core.protocols import Item
from embodied.core.run_folder import Stopwatch

NO_SUCCESS_RATE = "Errors along recordings are no success rate."


def open_console() -> Console:
    """Where a command tells what it does. Of several processes that a launcher started only the first tells."""
    return Console(quiet=os.environ.get("RANK", "0") != "0")


class RichReporter:
    """Implements `core.protocols.Reporter`: a bar with count, time and time left for every loop.

    Where the output is no terminal (a log file, CI) each phase leaves one line instead.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Shows the phase's name, and its seconds when it has ended well."""
        watch = Stopwatch()
        if not self.console.is_terminal:
            self.console.print(f"{name} ...", highlight=False)
        yield
        self.console.print(f"[green]✓[/] {name:<10} {watch.seconds:7.1f} s", highlight=False)

    def track(self, items: Iterable[Item], *, total: int, description: str, done: int = 0) -> Iterator[Item]:
        """Yields the items under a bar that disappears at the end."""
        if not self.console.is_terminal:
            yield from self._without_bar(items, total=total, description=description, done=done)
            return
        with Progress(*self._columns(), console=self.console, transient=True) as progress:
            task = progress.add_task(description, total=total, completed=done)
            for item in items:
                yield item
                progress.advance(task)

    def _columns(self) -> Sequence[ProgressColumn]:
        return (
            SpinnerColumn(),
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )

    def _without_bar(self, items: Iterable[Item], *, total: int, description: str, done: int) -> Iterator[Item]:
        """What `track` does where nobody watches."""
        yield from items

    def note(self, text: str) -> None:
        """One line."""
        self.console.print(text, highlight=False)


def closing_table(console: Console, summary: dict[str, Any], folder: Path) -> None:
    """The end of `embodied train`: success with its interval, time per phase, what to look at."""
    low, high = summary["interval"]
    table = Table(
        title=f"{summary['task']}, encoder {summary['encoder']}, head {summary['head']}", title_justify="left"
    )
    table.add_column("result")
    table.add_column("value", overflow="fold")
    table.add_row(
        "success rate",
        f"[bold]{summary['success_rate']:.0%}[/] ({summary['successes']} of {summary['episodes']}; 95 % interval "
        f"{low:.0%} to {high:.0%})",
    )
    best = summary["best_checkpoint"]
    if best:
        table.add_row(
            "best over checkpoints",
            f"{best['success_rate']:.0%} of {best['episodes']} other episodes, step {best['step']} (CortexBench-style)",
        )
    seconds = summary["seconds"]
    table.add_row("time", ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
    table.add_row("total", f"{sum(seconds.values()):.0f} s")
    table.add_section()
    for name in ("report", "video", "learning_curve", "success", "policy"):
        if name not in summary["artifacts"]:
            continue
        table.add_row(name.replace("_", " "), str(folder / summary["artifacts"][name]))
    console.print(table)


def open_loop_table(console: Console, summary: dict[str, Any], folder: Path) -> None:
    """The end of `embodied train env=none`: open-loop errors beside trivial predictors, what to look at."""
    title = f"{summary['task']}, encoder {summary['encoder']}, head {summary['head']}"
    _errors(console, title, summary["open_loop"], summary["best_checkpoint"])
    console.print(f"{against_trivial(summary['open_loop'])} {NO_SUCCESS_RATE}", highlight=False)
    _whereabouts(console, summary, folder, ("report", "open_loop", "policy"))


def several_tables(console: Console, summary: dict[str, Any], folder: Path) -> None:
    """The same of one policy for several robots: a table for each."""
    for name, found in summary["robots"].items():
        _errors(console, f"robot {name}", found["open_loop"], found["best_checkpoint"])
        console.print(against_trivial(found["open_loop"]), highlight=False)
    console.print(NO_SUCCESS_RATE, highlight=False)
    _whereabouts(console, summary, folder, ("report", "policy"))


def _errors(console: Console, title: str, found: Mapping[str, Any], best: Mapping[str, Any]) -> None:
    console.print(
        f"{title}: open loop on {len(found['episodes'])} held-out episode(s), {found['frames']:,} frames",
        highlight=False,
    )
    table = Table()
    table.add_column("actions of")
    for column in ("deviations off", "mean absolute error"):
        table.add_column(column, justify="right")
    for row in overall_rows(found):
        table.add_row(*row)
    table.add_section()
    for row in best["checkpoints"]:
        table.add_row(f"step {row['step']}", f"{row['in_deviations']:.3f}", f"{row['overall']:.4g}")
    console.print(table)


def _whereabouts(console: Console, summary: Mapping[str, Any], folder: Path, names: Sequence[str]) -> None:
    seconds = summary["seconds"]
    console.print(", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()), highlight=False)
    for name in names:
        path = folder / summary["artifacts"][name]
        console.print(f"{name.replace('_', ' ')}: {path}", highlight=False, soft_wrap=True)
