"""A task's details on the page: every seed, learning curves, failures, and where the videos are."""

from __future__ import annotations

import os
from collections import defaultdict
from html import escape
from pathlib import Path
from urllib.parse import quote

import numpy as np

from embodied.bench.cells import CellResult
from embodied.bench.html import scrolled
from embodied.bench.statistics.aggregates import percentile_interval, resampled
from embodied.bench.tables.contenders import Column, Entry, column_labels
from embodied.bench.tables.figures import Chart, Line, seed_dots, swatch
from embodied.bench.tables.ranking import Inks, detail_id
from embodied.bench.tables.scenes import Scene
from embodied.bench.tables.words import duration, percent, phase_seconds, with_interval

RESAMPLES = 1000  # of a point of a learning curve
VIDEO, REPORT = Path("videos") / "rollout.mp4", Path("report.html")


def task_details(scene: Scene, inks: Inks, folder: Path) -> str:
    """A panel per task, closed until asked for.

    Videos and run reports are linked, not embedded: a page with hundreds of videos inside would not open. They are
    found as long as the page stays beside its runs; of those that are not there, no link is shown.

    Args:
        scene: whose tasks.
        inks: how contenders look.
        folder: of the page; runs are relative to it.
    """
    labels = column_labels(scene.columns)
    return "".join(_panel(scene, column, labels[column], inks, folder) for column in scene.columns)


def _panel(scene: Scene, column: Column, label: str, inks: Inks, folder: Path) -> str:
    rows = "".join(_row(scene, column, number, inks, folder) for number in range(len(scene.rows)))
    curves = learning_curves(scene, column, inks).drawn()
    drawn = f"<h4>Learning curves, on selection episodes, with 95 % of resampled seeds</h4>{curves}" if curves else ""
    names = ("encoder", "controller", "mean over seeds", "seeds", "best checkpoint", "time per cell", "look")
    head = "".join(f"<th>{name}</th>" for name in names)
    return (
        f'<details class="task" id="{detail_id(scene, column)}"><summary>{escape(label)} '
        f'<span class="soft">{escape(column.env)}</span></summary>'
        f"{scrolled(f'<table><tr>{head}</tr>{rows}</table>')}"
        f'<figure class="player" hidden><video controls loop muted preload="none"></video><figcaption></figcaption>'
        f"</figure>{drawn}</details>"
    )


def _row(scene: Scene, column: Column, number: int, inks: Inks, folder: Path) -> str:
    row = scene.rows[number]
    entry, ink, name = row.entries[column], inks[row.contender], row.contender
    start = (
        f'<tr data-c="{ink.key}"><td class="name">{swatch(ink)}'
        f'<span title="{escape(name.encoder)}">{escape(name.short)}</span></td><td>{escape(name.controller)}</td>'
    )
    failed = "".join(
        f'<div class="bad">seed {result.cell.seed} failed: {escape(result.reason or "no reason kept")}</div>'
        for result in entry.failed
    )
    if entry.estimate is None:
        return f'{start}<td colspan="5">{failed or "not run"}</td></tr>'
    best = percent(entry.best) if entry.best is not None else ""
    seconds: dict[str, float] = defaultdict(float)
    for run in entry.runs:
        for phase, value in run.seconds.items():
            seconds[phase] += value / len(entry.runs)
    looks = "".join(_links(run, folder) for run in entry.runs)
    return (
        f"{start}<td><b>{_mean_text(entry)}</b></td>"
        f"<td>{seed_dots(entry.scores.tolist(), entry.seeds, entry.estimate, ink)}</td><td>{best}</td>"
        f'<td title="{phase_seconds(seconds)}">{duration(sum(seconds.values()))}</td><td>{looks}{failed}</td></tr>'
    )


def _mean_text(entry: Entry) -> str:
    text = with_interval(entry.estimate)
    if entry.sequential:
        tried = sum(len(run.episodes) for run in entry.runs)
        planned = sum(int(run.sequential["planned"]) for run in entry.runs)
        return f"{text}</b> <small>{tried} of {planned} planned episodes</small><b>"
    if entry.one_policy_interval is None:
        return text
    low, high = entry.one_policy_interval
    return (
        f"{text}</b> <small>one seed: no interval over seeds; this one policy's episodes say {percent(low)} to "
        f"{percent(high)}</small><b>"
    )


def _links(run: CellResult, folder: Path) -> str:
    """The video and the report of a run, as far as they are there."""
    if not run.run:
        return ""
    found = []
    for part, kind, sign in ((VIDEO, "play", "▶"), (REPORT, "report", "report")):
        if (folder / run.run / part).is_file():
            address = quote(os.path.join(run.run, part))
            label = f"{run.cell.encoder} / {run.cell.controller}, seed {run.cell.seed}: {percent(run.score)}"
            text = f"{sign} {run.cell.seed}" if kind == "play" else sign
            found.append(f'<a class="{kind}" href="{address}" title="{escape(label)}">{text}</a>')
    return f'<span class="run">{" ".join(found)}</span> ' if found else ""


def learning_curves(scene: Scene, column: Column, inks: Inks) -> Chart:
    """Mean over seeds of the selection episodes' score by step, with its interval at every step by itself.

    No lines where no curve was kept; a single seed has no band.
    """
    lines = []
    for row in scene.rows:
        by_step: dict[float, list[float]] = defaultdict(list)
        for run in row.entries[column].runs:
            for step, score in run.curve:
                by_step[step].append(score)
        steps = sorted(by_step)
        if steps:
            scores = [np.array(by_step[step]) for step in steps]
            several = max(len(each) for each in scores) > 1
            bands = [_interval(each) for each in scores] if several else []
            lines.append(
                Line(
                    label=row.contender.label,
                    ink=inks[row.contender],
                    x=steps,
                    y=[float(each.mean()) for each in scores],
                    low=[low for low, _ in bands] if several else None,
                    high=[high for _, high in bands] if several else None,
                    markers=True,
                )
            )
    return Chart(lines=lines, x_label="training step", y_label="score", width=620, height=240)


def _interval(scores: np.ndarray) -> tuple[float, float]:
    """95 % of the means of resampled seeds; a report has thousands of these, so there are few resamples."""
    return percentile_interval(resampled([scores], resamples=RESAMPLES).mean(axis=1), 0.95)
