"""Tasks in a row: of chains of tasks how many were done, which their mean score alone does not show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.markup import escape as plain
from rich.table import Table

from embodied.bench.html import scrolled, table
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.statistics.intervals import seeds_interval
from embodied.bench.suite import options_of
from embodied.bench.tables.contenders import Column, Contender, Entry, column_labels
from embodied.bench.tables.scenes import Scene
from embodied.bench.tables.words import rounded_interval

EXPLAINED = (
    "Share of chains with at least so many tasks done in a row, in percent, and how many were done on average, as "
    "CALVIN counts; with the interval of seeds and episodes."
)


class ChainRow(NamedTuple):
    """Of a contender: `reached[n - 1]`: share of chains with at least n tasks done; `average`: tasks done."""

    contender: Contender
    reached: Sequence[Estimate]
    average: Estimate


def chain_of(column: Column) -> int:
    """Tasks of an episode, one after the other; 1 where there are no chains."""
    return int(options_of(column.variant).get("chain", 1))


def chain_rows(scene: Scene, column: Column) -> list[ChainRow]:
    """In the order of the scene; who has no result is left out."""
    chain = chain_of(column)
    found = ((row.contender, row.entries[column]) for row in scene.rows)
    return [_row(contender, entry, chain) for contender, entry in found if entry.runs]


def chain_tables(scene: Scene) -> str:
    """HTML: a table for every column of chains; empty without any."""
    parts = []
    for label, column in _chained(scene):
        names = ["encoder", "controller", *map(str, range(1, chain_of(column) + 1)), "average length"]
        rows = [_cells(row) for row in chain_rows(scene, column)]
        parts.append(f"<h4>{escape(label)}</h4>{scrolled(table(names, rows))}")
    return f'<h3>Tasks in a row</h3><p class="soft">{EXPLAINED}</p>{"".join(parts)}' if parts else ""


def terminal_chains(scene: Scene) -> Iterator[Table]:
    """The same for a terminal."""
    for label, column in _chained(scene):
        title = f"Tasks in a row: {label}"
        shown = Table(title=plain(title), title_justify="left", title_style="bold", box=SIMPLE_HEAD)
        for name in ("encoder", "controller"):
            shown.add_column(name, overflow="fold")
        for name in (*map(str, range(1, chain_of(column) + 1)), "average"):
            shown.add_column(name, justify="right", no_wrap=True)
        for row in chain_rows(scene, column):
            shown.add_row(*map(plain, _cells(row)))
        yield shown


def _chained(scene: Scene) -> list[tuple[str, Column]]:
    labels = column_labels(scene.columns)
    return [(labels[column], column) for column in scene.columns if chain_of(column) > 1]


def _cells(row: ChainRow) -> list[str]:
    average, span = row.average, ""
    if average.low is not None and average.high is not None:
        span = f" [{average.low:.2f}, {average.high:.2f}]"
    names = [row.contender.short, row.contender.controller]
    return [*names, *map(rounded_interval, row.reached), f"{average.value:.2f}{span}"]


def _row(contender: Contender, entry: Entry, chain: int) -> ChainRow:
    done = [np.rint(np.array(run.episode_scores) * chain) for run in entry.runs]
    reached = [
        _estimate([(each >= number).astype(float) for each in done], fixed=not entry.sequential)
        for number in range(1, chain + 1)
    ]
    assert entry.estimate is not None, "runs without an estimate"
    return ChainRow(contender, reached, _times(entry.estimate, chain))


def _times(estimate: Estimate, factor: int) -> Estimate:
    low, high = (None if bound is None else factor * bound for bound in (estimate.low, estimate.high))
    return Estimate(value=factor * estimate.value, low=low, high=high)


def _estimate(runs: Sequence[np.ndarray], *, fixed: bool) -> Estimate:
    """Mean over seeds of zeros and ones; without interval of one seed, and of what may have stopped early."""
    if len(runs) == 1 or not fixed:
        return Estimate(value=float(np.mean([each.mean() for each in runs])))
    value, low, high = seeds_interval([each.tolist() for each in runs])
    return Estimate(value=value, low=low, high=high)
