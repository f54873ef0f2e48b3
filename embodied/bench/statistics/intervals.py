"""Intervals of one task's score: of one run's episodes, and of the mean over training seeds."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np

from embodied.core.errors import UsageError

_CHUNK = 4_000_000  # episodes drawn at a time, for the memory


def wilson_interval(successes: int, episodes: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a success rate from independent episodes, (low, high) in [0, 1].

    Unlike the normal approximation it is not empty at 0 or all successes. Source: Wilson 1927, JASA 22(158).
    """
    if not 0 <= successes <= episodes or episodes < 1:
        raise UsageError(f"successes must be in [0, episodes], episodes positive; got {successes} of {episodes}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    rate = successes / episodes
    centre = rate + z**2 / (2 * episodes)
    spread = z * sqrt(rate * (1 - rate) / episodes + z**2 / (4 * episodes**2))
    scale = 1 + z**2 / episodes
    low, high = (centre - spread) / scale, (centre + spread) / scale
    # Exactly 0 and 1 at the ends, where rounding would leave 1e-17.
    return (0.0 if successes == 0 else low), (1.0 if successes == episodes else high)


def seeds_interval(
    outcomes: Sequence[Sequence[float]], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean score over training seeds with a percentile interval of the two-level bootstrap.

    Episodes of one training run share its luck, so pooling them all would give an interval that is too narrow: whole
    runs are drawn with replacement, then episodes inside each drawn run (Davison & Hinkley 1997, Sec. 3.8). Where runs
    agree the bootstrap is too narrow instead (empty if every episode succeeds), so for successes the interval also
    covers Wilson's of all episodes together; scores between 0 and 1, for which Wilson's would be far too wide, have
    the bootstrap's alone.

    Args:
        outcomes: success (or score, in [0, 1]) of every episode, one sequence per training seed. With one sequence the
            interval is that of one policy's episodes and says nothing of another training.
        seed: of the resampling.
        resamples: bootstrap samples.
        confidence: of the interval.

    Returns:
        Mean over runs of their mean scores, low, high, all in [0, 1].
    """
    if not outcomes or not all(len(run) for run in outcomes):
        raise UsageError("outcomes: expected at least one run, none empty")
    runs = [np.asarray(run, float) for run in outcomes]
    pooled = np.concatenate(runs)
    binary = bool(np.isin(pooled, (0.0, 1.0)).all())
    means = _draw_means(runs, np.random.default_rng(seed), resamples, binary=binary)
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    if binary:
        wilson_low, wilson_high = wilson_interval(int(pooled.sum()), len(pooled), confidence=confidence)
        low, high = min(low, wilson_low), max(high, wilson_high)
    return float(np.mean([run.mean() for run in runs])), float(low), float(high)


def _draw_means(runs: Sequence[np.ndarray], random: np.random.Generator, resamples: int, *, binary: bool) -> np.ndarray:
    """Means of bootstrap samples, [resamples]: runs drawn with replacement, then as many episodes of each as it has."""
    lengths = np.array([len(run) for run in runs])
    drawn = random.integers(len(runs), size=(resamples, len(runs)))
    if binary:  # successes among episodes drawn with replacement are binomial: no need to draw each
        scores = np.empty(drawn.shape)
        for place, run in enumerate(runs):  # one rate at a time is several times faster than an array of rates
            here = drawn == place
            scores[here] = random.binomial(len(run), run.mean(), size=int(here.sum())) / len(run)
        return scores @ np.full(len(runs), 1 / len(runs))
    table = np.zeros((len(runs), lengths.max()))
    for row, run in zip(table, runs, strict=True):
        row[: len(run)] = run
    kept = np.arange(lengths.max()) < lengths[:, None]  # shorter runs do not fill their row
    means = []
    for part in np.array_split(drawn, max(1, drawn.size * lengths.max() // _CHUNK)):
        shape = (*part.shape, lengths.max())
        places = (random.random(shape) * lengths[part][..., None]).astype(int)
        scores = np.take_along_axis(table[part], places, axis=-1) * kept[part]
        means.append((scores.sum(axis=-1) / lengths[part]).mean(axis=1))
    return np.concatenate(means)
