"""Curves of a replication: how a metric of its pre-trainings changes along an axis, over seeds.

curves:
  - name: trunk                    # of plots/trunk.png
    claim: The larger the trunk, the lower the loss.
    theirs: ...                    # what the paper found
    metric: holdout_loss           # the last one of each job's metrics.jsonl
    axis: weights of the trunk
    points: {small: 200000, large: 3200000}     # job: its place on the axis
    beside: untrained              # a job without a place, shown as a level; optional
    logarithmic: true              # the axis; default
    falls: true                    # what the claim says; false: it rises
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from typing import Any

import numpy as np

from embodied.bench.replicate_jobs import JobRecord, Pretraining
from embodied.bench.statistics.student import student_interval
from embodied.core.errors import UsageError
from embodied.core.files import atomic_path

TITLE_WIDTH = 56  # letters that fit over a plot


@dataclass(frozen=True, kw_only=True)
class Curve:
    """See the module; `points` in the order of the axis."""

    name: str
    claim: str
    theirs: str
    metric: str
    axis: str
    points: Mapping[str, float]
    beside: str | None = None
    logarithmic: bool = True
    falls: bool = True

    @property
    def jobs(self) -> list[str]:
        """Names of all jobs that it shows."""
        return [*self.points, *([] if self.beside is None else [self.beside])]

    @property
    def places(self) -> np.ndarray:
        """Of the points, in units of the slope: doublings of a logarithmic axis."""
        found = np.array(list(self.points.values()), float)
        return np.log2(found) if self.logarithmic else found


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a curve came to.

    Args:
        values: [points, seeds] of the metric, of the seeds that every point has.
        slope: mean over seeds of the least-squares slope, per doubling where the axis is logarithmic.
        low, high: 95 % interval of its mean by Student's t over seeds; None with less than two.
        missing: jobs that have no such metric.
        beside: of the job beside the points, by seed.
    """

    values: np.ndarray
    slope: float | None = None
    low: float | None = None
    high: float | None = None
    missing: list[str] = field(default_factory=list)
    beside: list[float] = field(default_factory=list)


def read_curve(content: Any, *, where: str) -> Curve:
    """From what a preset's YAML holds.

    Raises:
        UsageError: an entry is missing or unknown, or there are too few points to make a curve.
    """
    try:
        curve = Curve(**content)
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from error
    places = list(curve.points.values())
    if len(places) < 2 or len(set(places)) < len(places) or (curve.logarithmic and min(places) <= 0):
        raise UsageError(f"{where}, {curve.name}: expected different (and positive) places of two jobs, got {places}")
    return curve


def measure(curve: Curve, records: Mapping[str, JobRecord], pretraining: Pretraining) -> Measured:
    """The metric of every point, and its slope with an interval over seeds."""
    by_seed: dict[str, dict[int, float]] = {name: {} for name in curve.jobs}
    missing = []
    for job in pretraining.jobs:
        if job.name not in by_seed:
            continue
        record = records.get(job.key)
        if record is None or curve.metric not in record.metrics:
            missing.append(job.key)
        else:
            by_seed[job.name][job.seed] = float(record.metrics[curve.metric])
    beside = [] if curve.beside is None else list(by_seed.pop(curve.beside).values())
    seeds = sorted(set.intersection(*(set(found) for found in by_seed.values())))
    values = np.array([[found[seed] for seed in seeds] for found in by_seed.values()]).reshape(len(by_seed), -1)
    if not seeds:
        return Measured(values=values, missing=missing, beside=beside)
    slopes = np.polyfit(curve.places, values, 1)[0]  # (seeds,)
    if len(slopes) < 2:
        return Measured(values=values, slope=float(slopes.mean()), missing=missing, beside=beside)
    mean, low, high = student_interval([slopes])
    return Measured(values=values, slope=mean, low=low, high=high, missing=missing, beside=beside)


def plot_curve(curve: Curve, measured: Measured, path: Path) -> None:
    """Every seed as a point, the means as a line; the PNG to write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import EngFormatter

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.array(list(curve.points.values()), float)
    for values in measured.values.T:
        axes.scatter(places, values, color="#6b7280", s=18)
    axes.plot(places, measured.values.mean(axis=1), color="#2563eb", marker="o")
    if measured.beside:
        axes.axhline(float(np.mean(measured.beside)), color="#6b7280", linestyle="--", label=curve.beside)
        axes.legend(frameon=False)
    if curve.logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, labels=[EngFormatter()(float(f"{place:.3g}")) for place in places])
        axes.minorticks_off()
    axes.set(xlabel=curve.axis, ylabel=curve.metric, title=fill(curve.claim, TITLE_WIDTH, break_on_hyphens=False))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
