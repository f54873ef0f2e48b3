"""The tables as rich ones, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from embodied.bench.tables.contenders import Entry, column_labels, contender_of
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


def terminal_tables(tables: BenchTables) -> Group:
    """Everything worth seeing at once: per scene a sentence, the ranking and the tasks; then failures and notes."""
    parts: list[RenderableType] = []
    for scene in tables.scenes:
        parts += [_ranking(scene), Text(headline(scene), style="italic"), _tasks(scene), Text()]
    parts.append(Text(f"suite {tables.suite}, protocol {tables.protocol}, {cell_counts(tables)}"))
    parts += [Text(text, style="yellow") for text in tables.notes]
    parts += [Text(text, style="red") for text in _failures(tables)]
    return Group(*parts)


def _ranking(scene: Scene) -> Table:
    against = f"over {scene.baseline.label}" if scene.baseline else ""
    table = Table(title=scene.title, title_justify="left", title_style="bold")
    for name in ("#", "encoder", "controller", "IQM, 95 % interval", "mean"):
        table.add_column(name, justify="left" if name in ("encoder", "controller") else "right")
    if scene.baseline:
        for name in (f"P(better) {against}", "difference", "p"):
            table.add_column(name, justify="right", overflow="fold")
    for name in ("tasks", "seeds"):
        table.add_column(name, justify="right")
    for row in scene.rows:
        rank = str(row.rank) if row.rank else "oracle" if row.contender.oracle else "-"
        names = [rank, escape(row.contender.short), escape(row.contender.controller)]
        numbers = ["[red]failed[/]", ""]
        if row.aggregates:
            numbers = [with_interval(row.aggregates["iqm"]), percent(row.aggregates["mean"].value)]
        versus = []
        if scene.baseline:
            versus = [with_interval(row.improvement), difference_text(row.versus), p_text(row.holm_p)]
        table.add_row(
            *names,
            *numbers,
            *versus,
            tasks_text(row),
            seed_counts_text(row),
            style="dim" if row.contender.oracle else "",
        )
    return table


def _tasks(scene: Scene) -> Table:
    labels = column_labels(scene.columns)
    table = Table(title=f"{scene.title}, by task", title_justify="left", title_style="bold")
    table.add_column("encoder")
    table.add_column("controller")
    for column in scene.columns:
        table.add_column(labels[column], justify="right", overflow="fold")
    for row in scene.rows:
        table.add_row(*_task_row(row, [row.entries[column] for column in scene.columns]))
    return table


def _task_row(row: Row, entries: list[Entry]) -> Iterator[str]:
    yield escape(row.contender.short)
    yield escape(row.contender.controller)
    for entry in entries:
        failed = f" [red]({len(entry.failed)} failed)[/]" if entry.failed else ""
        yield (escape(rounded_interval(entry.estimate)) if entry.estimate else "-") + failed


def _failures(tables: BenchTables) -> Iterator[str]:
    alike: dict[tuple[str, str], int] = Counter(
        (contender_of(result).label, result.reason or "no reason kept") for result in tables.failures
    )
    for (label, reason), count in list(alike.items())[:SHOWN_FAILURES]:
        yield f"failed: {count} {'cell' if count == 1 else 'cells'} of {label}: {reason}"
    if len(alike) > SHOWN_FAILURES:
        yield f"... and {len(alike) - SHOWN_FAILURES} more ways of failing: see the report"
