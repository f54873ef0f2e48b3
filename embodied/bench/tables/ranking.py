"""The sortable tables of a scene: the ranking, and every task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from embodied.bench.html import scrolled
from embodied.bench.tables.contenders import Column, Contender, Entry, column_labels
from embodied.bench.tables.figures import Ink, interval_bar, swatch
from embodied.bench.tables.scenes import Row, Scene
from embodied.bench.tables.words import (
    difference_text,
    p_text,
    percent,
    seed_counts_text,
    seeds_needed_text,
    tasks_text,
    with_interval,
)

Inks = Mapping[Contender, Ink]


def cell(content: str, value: float | str | None = None, *, kind: str = "", title: str = "") -> str:
    """A table cell; `value` is what it is sorted by, None sorts to the end."""
    sort = "" if value is None else f' data-v="{escape(str(value))}"'
    extra = (f' class="{kind}"' if kind else "") + (f' title="{escape(title)}"' if title else "")
    return f"<td{sort}{extra}>{content}</td>"


def header(names: Sequence[tuple[str, str]], *, links: Sequence[str] = ()) -> str:
    """A row of headings that sort; each with its explanation. `links` go beside the last headings."""
    plain = len(names) - len(links)
    cells = []
    for number, (name, title) in enumerate(names):
        link = f' <a href="#{links[number - plain]}" title="details">↓</a>' if number >= plain and links else ""
        button = f'<button type="button" title="{escape(title or "sort")}">{escape(name)}</button>'
        cells.append(f'<th scope="col">{button}{link}</th>')
    return f"<thead><tr>{''.join(cells)}</tr></thead>"


def ranking_table(scene: Scene, inks: Inks) -> str:
    """Aggregates and comparisons, one row per contender."""
    against = scene.baseline.label if scene.baseline else "the baseline"
    names = [
        ("#", "rank by IQM; the oracle and who lacks tasks have none"),
        ("encoder", ""),
        ("controller", ""),
        ("IQM", "interquartile mean of all runs, 95 % interval"),
        ("mean", "mean over tasks"),
        ("median", "median over tasks"),
        ("gap", "optimality gap: how far from 100 on average"),
        ("P(better)", f"chance that a run beats a run of {against}"),
        ("difference", f"percentage points to {against} over common seeds"),
        ("p", "paired permutation test of the difference, Holm-corrected"),
        ("seeds needed", f"per task, to tell it from {against}"),
        ("tasks", "with results"),
        ("seeds", "training seeds per task"),
        ("s / cell", "seconds of computing per cell"),
    ]
    rows = "".join(_ranking_row(row, scene, inks[row.contender]) for row in scene.rows)
    return _sortable(f"{scene.name}-ranking", header(names), rows)


def _ranking_row(row: Row, scene: Scene, ink: Ink) -> str:
    seconds = [sum(run.seconds.values()) for run in row.runs]
    per_cell = sum(seconds) / len(seconds) if seconds else None
    cells = [
        cell(str(row.rank) if row.rank else ("oracle" if row.contender.oracle else "-"), row.rank, kind="rank"),
        *_names(row.contender, ink, reference=row.contender == scene.baseline),
    ]
    if not row.aggregates:
        cells.append(f'<td colspan="11" class="bad">failed: {_failed(row)}</td>')
        return _row(row, ink, cells)
    for name in ("iqm", "mean", "median", "optimality_gap"):
        estimate = row.aggregates[name]
        shown = _pair(with_interval(estimate)) + interval_bar(estimate, ink, width=150)
        if name != "iqm":
            shown = percent(estimate.value)
        cells.append(cell(shown, estimate.value, kind="number", title=with_interval(estimate)))
    better, versus = row.improvement, row.versus
    cells += [
        cell(_pair(with_interval(better)), better.value if better else None, kind="number"),
        cell(_pair(difference_text(versus)), versus.difference if versus else None, kind="number"),
        cell(p_text(row.holm_p), row.holm_p, kind="number", title=_smallest(row)),
        cell(seeds_needed_text(versus), versus.seeds_needed if versus else None, kind="number"),
        cell(tasks_text(row), row.tasks, kind="number" if row.tasks == len(row.entries) else "number bad"),
        cell(seed_counts_text(row), row.seed_counts[0], kind="number"),
        cell(f"{per_cell:.0f}" if per_cell is not None else "", per_cell, kind="number"),
    ]
    return _row(row, ink, cells)


def task_table(scene: Scene, inks: Inks) -> str:
    """Every task's mean over seeds with its interval; each leads to its details."""
    labels = column_labels(scene.columns)
    names = [("encoder", ""), ("controller", "")]
    names += [(labels[column], f"{column.env} {column.task}, mean over seeds") for column in scene.columns]
    links = [detail_id(scene, column) for column in scene.columns]
    rows = "".join(
        _row(
            row,
            inks[row.contender],
            [
                *_names(row.contender, inks[row.contender]),
                *(
                    _task_cell(row.entries[column], inks[row.contender], link)
                    for column, link in zip(scene.columns, links, strict=True)
                ),
            ],
        )
        for row in scene.rows
    )
    return _sortable(f"{scene.name}-tasks", header(names, links=links), rows)


def detail_id(scene: Scene, column: Column) -> str:
    """The anchor of a task's details."""
    text = "-".join(("task", scene.name, column.env, column.task, column.variant, str(column.demos)))
    return "".join(letter if letter.isalnum() else "-" for letter in text)


def failures_text(entry: Entry) -> str:
    """`2 failed`, HTML with the reasons as a tooltip; empty without failures."""
    if not entry.failed:
        return ""
    reasons = "; ".join(f"seed {result.cell.seed}: {result.reason or 'no reason kept'}" for result in entry.failed)
    return f'<small class="bad" title="{escape(reasons)}">{len(entry.failed)} failed</small>'


def _task_cell(entry: Entry, ink: Ink, link: str) -> str:
    if entry.estimate is None:
        return cell(failures_text(entry) or '<small class="soft">not run</small>', None)
    drawn = interval_bar(entry.estimate, ink, width=84)
    content = f'<a href="#{link}"><b>{percent(entry.estimate.value)}</b></a> {failures_text(entry)}<br>{drawn}'
    shade = f'<span class="shade" style="--v:{entry.estimate.value:.3f}">{content}</span>'
    return cell(shade, entry.estimate.value, title=f"{with_interval(entry.estimate)}, {len(entry.runs)} seeds")


def _names(contender: Contender, ink: Ink, *, reference: bool = False) -> list[str]:
    tag = ' <small class="soft">reference</small>' if reference else ""
    return [
        cell(f"{swatch(ink)}{escape(contender.short)}{tag}", contender.encoder, kind="name", title=contender.encoder),
        cell(escape(contender.controller), contender.controller),
    ]


def _row(row: Row, ink: Ink, cells: Sequence[str]) -> str:
    kind = "oracle" if row.contender.oracle else "baseline" if row.contender.baseline else "entrant"
    return f'<tr data-c="{ink.key}" class="{kind}">{"".join(cells)}</tr>'


def _sortable(name: str, head: str, rows: str) -> str:
    return scrolled(f'<table class="sortable" id="{name}">{head}<tbody>{rows}</tbody></table>')


def _pair(text: str) -> str:
    """`62.1 [55.0, 70.3]` with a quiet bracket."""
    if not text:
        return ""
    value, _, bracket = text.partition(" ")
    return f"<b>{value}</b>" + (f" <small>{bracket}</small>" if bracket else "")


def _failed(row: Row) -> str:
    reasons = sorted({result.reason or "no reason kept" for result in row.failures})
    return escape("; ".join(reasons[:2]) + (f"; and {len(reasons) - 2} more" if len(reasons) > 2 else ""))


def _smallest(row: Row) -> str:
    if row.versus is None:
        return ""
    return f"{row.versus.pairs} pairs; the smallest p they can give is {row.versus.smallest_p:.2g} before correction"
