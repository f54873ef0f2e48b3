"""What a replication leaves: a page and a record of the verdicts, beside the report of its benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.table import Table

from embodied.bench.cells import CellResult
from embodied.bench.html import document, scrolled, table
from embodied.bench.replicate import Replication
from embodied.bench.replicate_cards import (
    curve_card,
    curve_record,
    headline,
    jobs_table,
    measure_card,
    measure_record,
    reading_text,
    slope_text,
)
from embodied.bench.replicate_curves import plot_curve
from embodied.bench.replicate_jobs import JobRecord
from embodied.bench.replicate_verdicts import CurveVerdict, MeasureVerdict, Verdict
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.tables.contenders import Contender, column_labels
from embodied.bench.tables.figures import Ink, interval_bar
from embodied.bench.tables.words import difference_text, duration, p_text, rounded_interval, with_interval
from embodied.core.files import write_json, write_text

STYLE = """
.verdict { border: 1px solid var(--line); border-radius: .7rem; padding: 1rem 1.2rem; margin: 1rem 0;
  background: var(--card); }
.verdict h3 { margin: 0 0 .4rem; } .word { font-size: 1.25rem; font-weight: 700; }
dt { font-weight: 600; margin-top: .5rem; } dd { margin: 0; }
"""


def write_replication(
    replication: Replication,
    verdicts: Sequence[Verdict],
    seconds: float,
    *,
    curves: Sequence[CurveVerdict] = (),
    measures: Sequence[MeasureVerdict] = (),
    jobs: Mapping[str, JobRecord] | None = None,
) -> Path:
    """Write `replicate.html`, `replicate.json` and `plots/` into the replication's folder; returns the page.

    Args:
        replication: the preset that was run.
        verdicts: on its claims.
        seconds: of computing, of all cells.
        curves: verdicts on its curves.
        measures: verdicts on its measures.
        jobs: records of its pre-trainings.
    """
    folder = replication.folder
    for each in curves:
        if each.measured.values.size:
            plot_curve(each.curve, each.measured, folder / "plots" / f"{each.curve.name}.png")
    found = record(replication, verdicts, seconds, curves=curves, measures=measures, jobs=jobs)
    write_json(folder / "replicate.json", found)
    page = folder / "replicate.html"
    style = (files("embodied.bench.tables") / "assets" / "bench.css").read_text(encoding="utf-8") + STYLE
    further = [
        *(curve_card(each) for each in curves),
        *(measure_card(each, replication.pretraining) for each in measures),
    ]
    body = _body(replication, verdicts, seconds, further, jobs or {})
    write_text(page, document(f"Replication: {replication.name}", body, style=style))
    return page


def record(
    replication: Replication,
    verdicts: Sequence[Verdict],
    seconds: float,
    *,
    curves: Sequence[CurveVerdict] = (),
    measures: Sequence[MeasureVerdict] = (),
    jobs: Mapping[str, JobRecord] | None = None,
) -> dict[str, Any]:
    """The verdicts, JSON-able; arguments as of `write_replication`."""
    return {
        "name": replication.name,
        "paper": replication.paper,
        "url": replication.url,
        "roles": dict(replication.roles),
        "seconds": round(seconds, 1),
        "verdicts": [_verdict_record(verdict) for verdict in verdicts],
        "curves": [curve_record(verdict) for verdict in curves],
        "measures": [measure_record(verdict) for verdict in measures],
        "pretraining": {key: {"seconds": job.seconds, **job.metrics} for key, job in (jobs or {}).items()},
    }


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    overall = verdict.duel.overall if verdict.duel else None
    return {
        "claim": verdict.claim.claim,
        "theirs": verdict.claim.theirs,
        "scene": verdict.claim.scene,
        "margin": verdict.claim.margin,
        "family": None if verdict.claim.margin else verdict.claim.family,
        "better": _name(verdict.better),
        "than": _name(verdict.than),
        "status": verdict.status,
        "reason": verdict.reason,
        "difference": overall.difference if overall else None,
        "low": overall.low if overall else None,
        "high": overall.high if overall else None,
        "p_holm": verdict.duel.holm_p if verdict.duel else None,
        "pairs": overall.pairs if overall else 0,
        "pairs_that_differ": verdict.differing,
    }


def _name(contender: Contender | None) -> str | None:
    return None if contender is None else f"{contender.encoder}/{contender.controller}"


def computing_seconds(results: Sequence[CellResult]) -> float:
    """Of all cells and phases."""
    return sum(sum(result.seconds.values()) for result in results)


def _body(
    replication: Replication,
    verdicts: Sequence[Verdict],
    seconds: float,
    further: Sequence[str],
    jobs: Mapping[str, JobRecord],
) -> str:
    tasks = sum(len(suite.tasks) for suite in replication.suites)
    trained = sum(job.seconds for job in jobs.values())
    before = f", after {duration(trained)} of {len(jobs)} pre-trainings" if jobs else ""
    pages = ", ".join(f'<a href="{escape(link)}">{escape(name)}</a>' for name, link in _reports(replication).items())
    return f"""
<h1>{escape(replication.name)}: the claims, tested again</h1>
<p class="soft">{escape(replication.paper)}. <a href="{escape(replication.url)}">{escape(replication.url)}</a></p>
<dl><dt>Their setting</dt><dd>{escape(replication.theirs)}</dd><dt>Ours</dt><dd>{escape(replication.ours)}</dd>
<dt>Cost</dt><dd>{duration(seconds)} of computing for {tasks} tasks, baselines included{before}</dd></dl>
<p>A difference in setting can turn a result around, so "opposite direction" says that the claim does not carry over to
this setting, not that the paper is wrong. Everything behind the numbers is in the report: {pages}.</p>
{"".join(_card(verdict) for verdict in verdicts)}
{"".join(further)}
{jobs_table(jobs)}
"""


def _reports(replication: Replication) -> dict[str, str]:
    """The reports of the benchmarks, as seen from the page."""
    several = len(replication.suites) > 1
    return {suite.name: f"{suite.name}/report.html" if several else "report.html" for suite in replication.suites}


def _card(verdict: Verdict) -> str:
    claim = verdict.claim
    asks = f"at most {100 * claim.margin:.0f} points below" if claim.margin else "above"
    parts = [headline(claim.claim, verdict.status, verdict.reason, claim.theirs)]
    if verdict.duel is not None and verdict.duel.overall is not None:
        duel, overall = verdict.duel, verdict.duel.overall
        drawn = interval_bar(
            Estimate(value=overall.difference, low=overall.low, high=overall.high),
            Ink(0, "var(--accent)", ""),
            scale=(-1.0, 1.0),
            width=260,
        )
        p = "" if claim.margin else f", p {p_text(duel.holm_p)}"
        parts.append(
            f"<p><b>Ours:</b> {escape(duel.first)} minus {escape(duel.second)}, {escape(duel.title.lower())}: "
            f"<b>{difference_text(overall)}</b> points over {overall.pairs} pairs{p} (asked for: {asks}) {drawn}</p>"
        )
        labels = column_labels([task.column for task in duel.tasks])
        rows = [
            [labels[task.column], with_interval(task.first.estimate), with_interval(task.second.estimate)]
            for task in duel.tasks
        ]
        parts.append(scrolled(table(["task", duel.first, duel.second], rows)))
    return f'<div class="verdict">{"".join(parts)}</div>'


def verdict_table(
    replication: Replication,
    verdicts: Sequence[Verdict],
    curves: Sequence[CurveVerdict] = (),
    measures: Sequence[MeasureVerdict] = (),
) -> Table:
    """For a terminal."""
    shown = Table(title=f"{replication.name}: {replication.paper}", title_justify="left", show_lines=True)
    for name in ("claim", "theirs", "ours, points", "verdict"):
        shown.add_column(name, overflow="fold")
    for verdict in verdicts:
        ours = ""
        if verdict.duel is not None:
            duel = verdict.duel
            sides = [_mean(task.first.estimate, task.second.estimate) for task in duel.tasks]
            ours = f"{duel.first} minus {duel.second}: {difference_text(duel.overall)}\n" + "\n".join(
                f"{task.column.task}: {text}" for task, text in zip(duel.tasks, sides, strict=True)
            )
        shown.add_row(
            f"{verdict.claim.claim} ({verdict.claim.scene})",
            verdict.claim.theirs,
            ours.replace("[", r"\["),
            f"{verdict.status}: {verdict.reason}".replace("[", r"\["),
        )
    for each in curves:
        slope = "" if each.measured.slope is None else f"slope {slope_text(each)}"
        ours = slope.replace("[", r"\[")
        shown.add_row(each.curve.claim, each.curve.theirs, ours, f"{each.status}: {each.reason}")
    for found in measures:
        number = "" if found.reading.value is None else f"{found.measure.metric}: {reading_text(found)}"
        told = f"{found.status}: {found.reason}"
        shown.add_row(found.measure.claim, found.measure.theirs, number.replace("[", r"\["), told)
    return shown


def _mean(first: Estimate | None, second: Estimate | None) -> str:
    assert first is not None and second is not None
    return f"{rounded_interval(first)} against {rounded_interval(second)}"
