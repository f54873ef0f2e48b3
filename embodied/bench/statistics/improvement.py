"""Probability of improvement: how often a run of one method beats a run of another (Agarwal et al. 2021, Sec. 4.3)."""

from __future__ import annotations

import numpy as np

from embodied.bench.statistics.aggregates import Estimate, Scores, check_scores, percentile_interval
from embodied.core.errors import UsageError

RESAMPLES = 2_000


def probability_of_improvement(
    scores: Scores, baseline: Scores, *, resamples: int = RESAMPLES, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Mean over tasks of P(a run's score > a baseline run's score), equal scores counting one half.

    It is the Mann-Whitney statistic of each task over the number of pairs. The interval is the percentile one of the
    stratified bootstrap, which draws the runs of both independently within each task, as rliable does.

    Args:
        scores, baseline: of the same tasks in the same order, one array per task.
        resamples, seed, confidence: of the interval; there is none where a task has a single seed.
    """
    wins = _wins_of_tasks(scores, baseline)
    value = float(np.mean([task.mean() for task in wins]))
    if min(min(task.shape) for task in wins) < 2:
        return Estimate(value=value)
    random = np.random.default_rng(seed)
    drawn = np.mean([_drawn(task, random, resamples) for task in wins], axis=0)
    low, high = percentile_interval(drawn, confidence)
    return Estimate(value=value, low=low, high=high)


def improvement_value(scores: Scores, baseline: Scores) -> float:
    """`probability_of_improvement` without its interval."""
    return float(np.mean([task.mean() for task in _wins_of_tasks(scores, baseline)]))


def _wins_of_tasks(scores: Scores, baseline: Scores) -> list[np.ndarray]:
    ours, theirs = check_scores(scores), check_scores(baseline)
    if len(ours) != len(theirs):
        raise UsageError(f"scores and baseline must be of the same tasks, got {len(ours)} and {len(theirs)} tasks")
    return [_wins(ours_task, theirs_task) for ours_task, theirs_task in zip(ours, theirs, strict=True)]


def _wins(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """1 where a run of ours beats one of theirs, 0.5 where they are equal, (n, m)."""
    above, equal = ours[:, None] > theirs[None], ours[:, None] == theirs[None]
    return np.asarray(above + 0.5 * equal)


def _drawn(wins: np.ndarray, random: np.random.Generator, resamples: int) -> np.ndarray:
    """The task's probability in bootstrap samples, [resamples]; how often each run is drawn is multinomial."""
    ours, theirs = (random.multinomial(count, np.full(count, 1 / count), size=resamples) for count in wins.shape)
    return np.einsum("rn,nm,rm->r", ours, wins, theirs) / wins.size
