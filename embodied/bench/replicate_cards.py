"""Parts of a replication's page: how a claim begins, curves, pre-trainings."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from embodied.bench.html import scrolled, table
from embodied.bench.replicate_jobs import RUNS, JobRecord, Pretraining
from embodied.bench.replicate_verdicts import OPPOSITE, SAME, UNDECIDED, CurveVerdict, MeasureVerdict
from embodied.bench.tables.words import duration

COLORS = {SAME: "ok", OPPOSITE: "bad", UNDECIDED: "soft"}


def curve_card(verdict: CurveVerdict) -> str:
    """The part of the page on a curve."""
    curve, measured = verdict.curve, verdict.measured
    asks = "below" if curve.falls else "above"
    per = "per doubling" if curve.logarithmic else "per unit"
    parts = [headline(curve.claim, verdict.status, verdict.reason, curve.theirs)]
    if measured.slope is not None:
        parts.append(
            f"<p><b>Ours:</b> {escape(curve.metric)} changes by <b>{slope_text(verdict)}</b> {per} of "
            f"{escape(curve.axis)}, over {measured.values.shape[1]} seeds (asked for: {asks} zero)</p>"
            f'<p><img src="plots/{escape(curve.name)}.png" alt="{escape(curve.claim)}"></p>'
        )
        rows = [
            [job, f"{place:g}", *(f"{value:.4f}" for value in values)]
            for (job, place), values in zip(curve.points.items(), measured.values, strict=True)
        ]
        seeds = [f"seed {number}" for number in range(measured.values.shape[1])]
        if curve.beside is not None:
            shown = [f"{value:.4f}" for value in measured.beside[: len(seeds)]]
            rows.append([curve.beside, "beside", *shown, *[""] * (len(seeds) - len(shown))])
        parts.append(scrolled(table(["pre-training", curve.axis, *seeds], rows)))
    return f'<div class="verdict">{"".join(parts)}</div>'


def slope_text(verdict: CurveVerdict) -> str:
    """The slope, with its interval if it has one."""
    measured = verdict.measured
    assert measured.slope is not None, verdict
    if measured.low is None or measured.high is None:
        return f"{measured.slope:+.4f}"
    return f"{measured.slope:+.4f} [{measured.low:+.4f}, {measured.high:+.4f}]"


def measure_card(verdict: MeasureVerdict, pretraining: Pretraining) -> str:
    """The part of the page on a measure, with its picture in the run folder of the job's first seed."""
    measure, reading = verdict.measure, verdict.reading
    parts = [headline(measure.claim, verdict.status, verdict.reason, measure.theirs)]
    if reading.value is not None:
        values = "" if len(reading.values) < 2 else f", over {len(reading.values)} seeds"
        parts.append(
            f"<p><b>Ours:</b> {escape(measure.metric)} of {escape(measure.job)} is <b>{escape(reading_text(verdict))}"
            f"</b>{values} (asked for: {measure.asked})</p>"
        )
        if measure.picture is not None:
            first = next(job for job in pretraining.jobs if job.name == measure.job)
            parts.append(f'<p><img src="{RUNS}/{escape(first.key)}/{escape(measure.picture)}" alt=""></p>')
    return f'<div class="verdict">{"".join(parts)}</div>'


def reading_text(verdict: MeasureVerdict) -> str:
    """The number with its unit, and its interval if it has one that is more than the number."""
    reading, unit = verdict.reading, verdict.measure.unit
    assert reading.value is not None, verdict
    shown = f"{reading.value:.4g}" + (f" {unit}" if unit else "")
    if reading.low is None or reading.high is None or reading.low == reading.high:
        return shown
    return f"{shown} [{reading.low:.4g}, {reading.high:.4g}]"


def measure_record(verdict: MeasureVerdict) -> dict[str, Any]:
    """A verdict on a measure, JSON-able."""
    return {**vars(verdict.measure), **vars(verdict.reading), "status": verdict.status, "reason": verdict.reason}


def jobs_table(jobs: Mapping[str, JobRecord]) -> str:
    """What every pre-training took and came to; empty without any."""
    if not jobs:
        return ""
    shown = ("loss", "holdout_loss")
    rows = [
        [key, duration(job.seconds), *(f"{job.metrics[name]:.4f}" if name in job.metrics else "" for name in shown)]
        for key, job in jobs.items()
    ]
    return f"<h2>Pre-trainings</h2>{scrolled(table(['pre-training', 'time', *shown], rows))}"


def headline(claim: str, status: str, reason: str, theirs: str) -> str:
    """How the part of the page on a claim begins."""
    return (
        f"<h3>{escape(claim)}</h3>"
        f'<p><span class="word {COLORS.get(status, "soft")}">{escape(status)}</span>'
        f' <span class="soft">{escape(reason)}</span></p>'
        f"<p><b>Theirs:</b> {escape(theirs)}</p>"
    )


def curve_record(verdict: CurveVerdict) -> dict[str, Any]:
    """A verdict on a curve, JSON-able."""
    curve, measured = verdict.curve, verdict.measured
    return {
        "claim": curve.claim,
        "theirs": curve.theirs,
        "metric": curve.metric,
        "axis": curve.axis,
        "points": dict(curve.points),
        "values": measured.values.tolist(),
        "beside": None if curve.beside is None else {curve.beside: measured.beside},
        "slope": measured.slope,
        "low": measured.low,
        "high": measured.high,
        "status": verdict.status,
        "reason": verdict.reason,
    }
