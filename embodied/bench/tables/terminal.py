"""The tables as rich ones, for a terminal."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from math import ceil

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embodied.bench.tables.chains import terminal_chains
from embodied.bench.tables.contenders import Column, Entry, column_labels, contender_of
from embodied.bench.tables.scenes import BenchTables, Row, Scene
from embodied.bench.tables.words import (
    cell_counts,
    difference_text,
    headline,
    p_text,
    percent,
    rounded_interval,
    seed_counts_text,
    tasks_text,
    with_interval,
)

SHOWN_FAILURES = 8
_UNLIMITED = 10_000  # columns


def terminal_tables(tables: BenchTables) -> Group:
    """Everything worth seeing at once: per scene a sentence, the ranking and the tasks; then failures and notes."""
    parts: list[RenderableType] = []
    for scene in tables.scenes:
        parts += [_Ranking(scene), Text(headline(scene), style="italic"), _Tasks(scene)]
        parts += [*terminal_chains(scene), Text()]
    parts.append(Text(f"suite {tables.suite}, protocol {tables.protocol}, {cell_counts(tables)}"))
    parts += [Text(text, style="yellow") for text in tables.notes]
    parts += [Text(text, style="red") for text in _failures(tables)]
    return Group(*parts)


class _Ranking:
    """The contenders of a scene in order, with as many columns as there is room for; the report has them all."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        scene, room = self._scene, options.max_width
        against = scene.baseline.label if scene.baseline else ""
        versus, details = bool(scene.baseline) and room >= 110, room >= 140
        # Right of the names: heading, what stands in a row, whether there is room for it.
        columns: list[tuple[str, Callable[[Row], str], bool]] = [
            ("IQM, 95 % interval", _iqm, True),
            ("P(better)", lambda row: with_interval(row.improvement), bool(scene.baseline)),
            ("difference", lambda row: difference_text(row.versus), versus),
            ("p", lambda row: p_text(row.holm_p), versus),
            ("mean", lambda row: percent(row.aggregates["mean"].value) if row.aggregates else "", details),
            ("tasks", tasks_text, details),
            ("seeds", seed_counts_text, details),
        ]
        shown = [(heading, text) for heading, text, there in columns if there]
        caption = f"P(better), difference and p: against {against}" if against else None
        table = Table(
            title=scene.title,
            title_justify="left",
            title_style="bold",
            box=SIMPLE_HEAD,
            caption=caption,
            pad_edge=False,
        )
        table.caption_justify = "left"
        table.add_column("#", justify="right")
        table.add_column("encoder", overflow="fold")
        table.add_column("controller", overflow="fold")
        for heading, _ in shown:
            table.add_column(heading, justify="right", no_wrap=True)
        for row in scene.rows:
            encoder = escape(row.contender.short) + (" (oracle)" if row.contender.oracle else "")
            names = [str(row.rank or ""), encoder, escape(row.contender.controller)]
            style = "dim" if row.contender.oracle else ""
            table.add_row(*names, *(text(row) for _, text in shown), style=style)
        yield table


def _iqm(row: Row) -> str:
    return with_interval(row.aggregates["iqm"]) if row.aggregates else "[red]failed[/]"


class _Tasks:
    """A scene task by task: intervals where there is room for all of them, several tables where one is too wide."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns, room = self._scene.columns, options.max_width

        def fits(table: Table) -> bool:
            return console.measure(table, options=options.update_width(_UNLIMITED)).maximum <= room

        whole = self._table(columns, room, intervals=True)
        if fits(whole):
            yield whole
            return
        for most in range(len(columns), 0, -1):
            size = ceil(len(columns) / ceil(len(columns) / most))  # about as many in each
            starts = range(0, len(columns), size)
            blocks = [self._table(columns[start : start + size], room, intervals=False) for start in starts]
            if size == 1 or all(map(fits, blocks)):
                yield from blocks
                return

    def _table(self, columns: Sequence[Column], room: int, *, intervals: bool) -> Table:
        scene = self._scene
        labels = column_labels(scene.columns)
        title = f"{scene.title}, by task" if columns[0] == scene.columns[0] else None
        table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        table.add_column("encoder", overflow="fold", max_width=max(12, room // 4))
        table.add_column("controller", overflow="fold", max_width=max(10, room // 5))
        for column in columns:
            table.add_column(escape(broken(labels[column])), justify="right", no_wrap=True)
        for row in scene.rows:
            entries = [row.entries[column] for column in columns]
            names = (escape(row.contender.short), escape(row.contender.controller))
            table.add_row(*names, *(_entry_text(entry, interval=intervals) for entry in entries))
        return table


def broken(label: str, width: int = 9) -> str:
    """A heading in lines of `width` characters where words and their parts allow it: it stands above a number."""
    lines = [""]
    for part in re.findall(r"[^-_ ]+[-_ ]*", label):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines)


def _entry_text(entry: Entry, *, interval: bool) -> str:
    failed = f" [red]({len(entry.failed)} failed)[/]" if entry.failed else ""
    if not entry.estimate:
        return "-" + failed
    return (escape(rounded_interval(entry.estimate)) if interval else f"{100 * entry.estimate.value:.0f}") + failed


def _failures(tables: BenchTables) -> Iterator[str]:
    alike: dict[tuple[str, str], int] = Counter(
        (contender_of(result).label, result.reason or "no reason kept") for result in tables.failures
    )
    for (label, reason), count in list(alike.items())[:SHOWN_FAILURES]:
        yield f"failed: {count} {'cell' if count == 1 else 'cells'} of {label}: {reason}"
    if len(alike) > SHOWN_FAILURES:
        yield f"... and {len(alike) - SHOWN_FAILURES} more ways of failing: see the report"
