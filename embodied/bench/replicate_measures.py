"""Measures of a replication: a number that a look at a pre-training found, beside a bound that a claim names.

measures:
  - claim: A few passes find what one code after the other takes hundreds for.
    theirs: ...                          # what the paper found
    job: model                           # of the preset, with `looks`
    metric: decoding.times_fewer_passes  # <look>.<number>
    above: 100                           # the claim; `below` for one that says less
    unit: times                          # in words; optional
    picture: plots/depths.png            # of the job's run, of its first seed; optional
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from embodied.bench.replicate_jobs import JobRecord, Pretraining
from embodied.bench.statistics.student import student_interval
from embodied.core.errors import UsageError

LOW, HIGH = "_low", "_high"  # after a metric's name: its interval within one run


@dataclass(frozen=True, kw_only=True)
class Measure:
    """See the module; exactly one of `above` and `below`."""

    claim: str
    theirs: str
    job: str
    metric: str
    above: float | None = None
    below: float | None = None
    unit: str = ""
    picture: str | None = None

    @property
    def bound(self) -> float:
        """What the number is held against."""
        found = self.below if self.above is None else self.above
        assert found is not None, self
        return found

    @property
    def asked(self) -> str:
        """In words, what the claim asks for."""
        return f"{'below' if self.above is None else 'above'} {self.bound:g}"


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What a measure came to.

    Args:
        values: by seed.
        value: their mean.
        low, high: 95 % interval over seeds by Student's t; of a single seed what its look says of its own
            measurement; None without.
        missing: jobs that have no such metric.
    """

    values: list[float] = field(default_factory=list)
    value: float | None = None
    low: float | None = None
    high: float | None = None
    missing: list[str] = field(default_factory=list)


def read_measure(content: Any, *, where: str) -> Measure:
    """From what a preset's YAML holds.

    Raises:
        UsageError: an entry is missing or unknown, or there is not one bound.
    """
    try:
        made = Measure(**content)
    except TypeError as error:
        raise UsageError(f"{where}: {error}") from error
    if (made.above is None) == (made.below is None):
        raise UsageError(f"{where}, {made.metric}: expected one of above and below, got {made.above} and {made.below}")
    return made


def take(measure: Measure, records: Mapping[str, JobRecord], pretraining: Pretraining) -> Reading:
    """The number of every seed, and an interval."""
    found: list[Mapping[str, float]] = []
    missing = []
    for job in pretraining.jobs:
        if job.name != measure.job:
            continue
        record = records.get(job.key)
        if record is None or measure.metric not in record.metrics:
            missing.append(job.key)
        else:
            found.append(record.metrics)
    values = [float(metrics[measure.metric]) for metrics in found]
    if not values:
        return Reading(missing=missing)
    if len(values) > 1:
        value, low, high = student_interval([np.array(values)])
        return Reading(values=values, value=value, low=low, high=high, missing=missing)
    ends = [found[0].get(measure.metric + end) for end in (LOW, HIGH)]
    return Reading(values=values, value=values[0], low=ends[0], high=ends[1], missing=missing)
