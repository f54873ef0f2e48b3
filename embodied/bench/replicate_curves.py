"""Curves of a replication: how a metric of its pre-trainings changes along an axis, over seeds.

curves:
  - name: trunk                    # of plots/trunk.png
    claim: The larger the trunk, the lower the loss.
    theirs: ...                    # what the paper found
    metric: holdout_loss           # the last one of each job's metrics.jsonl
    axis: weights of the trunk
    points: {small: 200000, large: 3200000}     # job: its place on the axis
    logarithmic: true              # the axis; default
    falls: true                    # what the claim says; false: it rises
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embodied.bench.replicate_jobs import JobRecord, Pretraining
from embodied.core.errors import UsageError
from embodied.core.files import atomic_path

# Student's t: 95 % of its mass lie within plus and minus so much, by degrees of freedom; from the last on, the last.
STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True, kw_only=True)
class Curve:
    """See the module; `points` in the order of the axis."""

    name: str
    claim: str
    theirs: str
    metric: str
    axis: str
    points: Mapping[str, float]
    logarithmic: bool = True
    falls: bool = True

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
    """

    values: np.ndarray
    slope: float | None = None
    low: float | None = None
    high: float | None = None
    missing: list[str] = field(default_factory=list)


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
    by_seed: dict[str, dict[int, float]] = {name: {} for name in curve.points}
    missing = []
    for job in pretraining.jobs:
        if job.name not in by_seed:
            continue
        record = records.get(job.key)
        if record is None or curve.metric not in record.metrics:
            missing.append(job.key)
        else:
            by_seed[job.name][job.seed] = float(record.metrics[curve.metric])
    seeds = sorted(set.intersection(*(set(found) for found in by_seed.values())))
    values = np.array([[found[seed] for seed in seeds] for found in by_seed.values()]).reshape(len(by_seed), -1)
    if not seeds:
        return Measured(values=values, missing=missing)
    slopes = np.polyfit(curve.places, values, 1)[0]  # (seeds,)
    if len(slopes) < 2:
        return Measured(values=values, slope=float(slopes.mean()), missing=missing)
    mean, low, high = student_interval(slopes)
    return Measured(values=values, slope=mean, low=low, high=high, missing=missing)


def student_interval(values: np.ndarray) -> tuple[float, float, float]:
    """Mean of at least two values, and the 95 % interval of it by Student's t."""
    mean = float(values.mean())
    reach = STUDENT[min(len(values) - 1, len(STUDENT)) - 1] * float(values.std(ddof=1)) / len(values) ** 0.5
    return mean, mean - reach, mean + reach


def plot_curve(curve: Curve, measured: Measured, path: Path) -> None:
    """Every seed as a point, the means as a line; the PNG to write."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.array(list(curve.points.values()), float)
    for values in measured.values.T:
        axes.scatter(places, values, color="#6b7280", s=18)
    axes.plot(places, measured.values.mean(axis=1), color="#2563eb", marker="o")
    if curve.logarithmic:
        axes.set_xscale("log", base=2)
        axes.set_xticks(places, labels=[f"{place:g}" for place in places])
        axes.minorticks_off()
    axes.set(xlabel=curve.axis, ylabel=curve.metric, title=curve.claim)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    with atomic_path(path) as temporary:
        FigureCanvasAgg(figure).print_png(str(temporary))
