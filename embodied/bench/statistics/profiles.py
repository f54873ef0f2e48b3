"""Performance profiles: the share of runs above each score (Agarwal et al. 2021, Sec. 4.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embodied.bench.statistics.aggregates import Scores, check_scores, resampled

RESAMPLES = 2_000  # as rliable's, whose bands are as wide


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Share of runs with a score above each threshold; bands are None where a task has a single seed."""

    thresholds: np.ndarray
    share: np.ndarray
    low: np.ndarray | None = None
    high: np.ndarray | None = None


def performance_profile(
    scores: Scores,
    thresholds: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    confidence: float = 0.95,
) -> Profile:
    """The run-score distribution with a pointwise band of the stratified bootstrap.

    Args:
        scores: one array per task, see `aggregates`; every task has the same weight.
        thresholds: scores [P], ascending.
        resamples, seed, confidence: of the band.
    """
    tasks = check_scores(scores)
    sizes = [len(task) for task in tasks]
    share = _shares(np.concatenate(tasks)[None], sizes, thresholds)[:, 0]
    if min(sizes) < 2:
        return Profile(thresholds=thresholds, share=share)
    drawn = _shares(resampled(tasks, resamples=resamples, seed=seed), sizes, thresholds)
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2], axis=1)
    return Profile(thresholds=thresholds, share=share, low=low, high=high)


def _shares(values: np.ndarray, sizes: list[int], thresholds: np.ndarray) -> np.ndarray:
    """Values (R, N) -> (P, R), by counting how many thresholds lie below each value."""
    below = np.searchsorted(thresholds, values, side="left")  # (R, N)
    rows, columns = len(values), len(thresholds) + 1
    places = below + columns * np.arange(rows)[:, None]
    weights = np.repeat([1 / (size * len(sizes)) for size in sizes], sizes)
    counts = np.bincount(places.ravel(), np.tile(weights, rows), minlength=rows * columns).reshape(rows, columns)
    return np.asarray(np.cumsum(counts[:, ::-1], axis=1)[:, ::-1][:, 1:].T)
