"""Aggregates over tasks and training seeds, as in rliable (Agarwal et al. 2021, arXiv 2108.13264), with intervals.

The scores of one method are a list with one array per task; an array holds the score of each training seed, in [0, 1].
rliable wants as many seeds in every task. Here a run may be missing: then every task keeps the same weight, and where
none is missing the numbers are rliable's.

Legend: R resamples, N scores of all tasks side by side, K tasks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from embodied.core.errors import UsageError

RESAMPLES = 10_000
TRIMMED = 0.25  # of each end, for the interquartile mean
Scores = Sequence[np.ndarray]
Aggregate = Callable[[np.ndarray, Sequence[int]], np.ndarray]  # values (R, N) and scores per task -> (R,)


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A number with its interval; `low` and `high` are None where the data cannot give one (a single seed)."""

    value: float
    low: float | None = None
    high: float | None = None


def mean(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Mean over tasks of the mean over seeds."""
    return np.asarray(task_means(values, sizes).mean(axis=-1))


def median(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Median over tasks of the mean over seeds."""
    return np.asarray(np.median(task_means(values, sizes), axis=-1))


def optimality_gap(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """How far from 1 the scores are on average; what exceeds 1 does not count."""
    return np.asarray(1.0 - task_means(np.minimum(values, 1.0), sizes).mean(axis=-1))


def iqm(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Interquartile mean: of the middle half of all scores of all tasks.

    With n scores the floor(n / 4) lowest and highest are left out, as scipy's trim_mean(0.25) and rliable do. Where
    tasks have unequal numbers of scores, each score weighs 1 / (K * scores of its task) and the same share of the
    weight is left out at both ends, cutting through a score if need be.
    """
    total = sum(sizes)
    cut = int(total * TRIMMED)
    if len(set(sizes)) == 1:
        return np.sort(values, axis=-1)[..., cut : total - cut] @ np.full(total - 2 * cut, 1 / (total - 2 * cut))
    weights = np.repeat([1 / (size * len(sizes)) for size in sizes], sizes)
    order = np.argsort(values, axis=-1)
    upper = np.cumsum(weights[order], axis=-1)
    lower = upper - weights[order]
    share = cut / total
    kept = np.clip(np.minimum(upper, 1 - share) - np.maximum(lower, share), 0, None)  # (R, N)
    ordered = np.take_along_axis(values, order, axis=-1)
    return np.asarray((ordered * kept).sum(axis=-1) / kept.sum(axis=-1))


AGGREGATES: Mapping[str, Aggregate] = {"iqm": iqm, "mean": mean, "median": median, "optimality_gap": optimality_gap}


def task_means(values: np.ndarray, sizes: Sequence[int]) -> np.ndarray:
    """Mean of each task's scores: values (..., N) -> (..., K)."""
    if len(set(sizes)) == 1:  # a product, since numpy's mean over a handful of values is slow
        return values.reshape(*values.shape[:-1], len(sizes), sizes[0]) @ np.full(sizes[0], 1 / sizes[0])
    starts = np.cumsum([0, *sizes[:-1]])
    return np.asarray(np.add.reduceat(values, starts, axis=-1) / np.asarray(sizes))


def check_scores(scores: Scores) -> list[np.ndarray]:
    """The scores as arrays of floats.

    Raises:
        UsageError: there are no tasks, or one has no scores or some that are no numbers.
    """
    arrays = [np.asarray(task, float) for task in scores]
    if not arrays or not all(task.ndim == 1 and len(task) and np.isfinite(task).all() for task in arrays):
        raise UsageError("scores: expected one array of finite numbers per task, none empty")
    return arrays


def resampled(scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Stratified bootstrap: within each task as many seeds as it has, drawn with replacement; (R, N)."""
    random = np.random.default_rng(seed)
    return np.concatenate([task[random.integers(len(task), size=(resamples, len(task)))] for task in scores], axis=1)


def aggregates(
    scores: Scores, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> dict[str, Estimate]:
    """Every aggregate of `AGGREGATES` with its percentile interval of the stratified bootstrap.

    The tasks are taken as fixed: the interval is about other seeds of these tasks. There is none where a task has
    a single seed, since nothing then says how much another seed would change.
    """
    tasks = check_scores(scores)
    sizes = [len(task) for task in tasks]
    pooled = np.concatenate(tasks)[None]
    points = {name: float(function(pooled, sizes)[0]) for name, function in AGGREGATES.items()}
    if min(sizes) < 2:
        return {name: Estimate(value=value) for name, value in points.items()}
    drawn = resampled(tasks, resamples=resamples, seed=seed)
    found = {}
    for name, function in AGGREGATES.items():
        low, high = percentile_interval(function(drawn, sizes), confidence)
        found[name] = Estimate(value=points[name], low=low, high=high)
    return found


def percentile_interval(samples: np.ndarray, confidence: float) -> tuple[float, float]:
    """The middle `confidence` of bootstrap samples."""
    low, high = np.quantile(samples, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)
