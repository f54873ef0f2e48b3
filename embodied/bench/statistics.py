"""Intervals for success rates."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from statistics import NormalDist

import numpy as np

from embodied.core.errors import UsageError


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
    outcomes: Sequence[Sequence[bool]], *, seed: int = 0, resamples: int = 10_000, confidence: float = 0.95
) -> tuple[float, float, float]:
    """Mean success over training seeds with a percentile interval of the two-level bootstrap.

    Episodes of one training run share its luck, so pooling them all would give an interval that is too narrow: whole
    runs are drawn with replacement, then episodes inside each drawn run (Davison & Hinkley 1997, Sec. 3.8). Where runs
    agree the bootstrap is too narrow instead (empty if every episode succeeds), so the interval also covers Wilson's of
    all episodes together.

    Args:
        outcomes: success of every episode, one sequence per training seed.
        seed: of the resampling.
        resamples: bootstrap samples.
        confidence: of the interval.

    Returns:
        Mean over runs of their success rates, low, high, all in [0, 1].
    """
    if not outcomes or not all(len(run) for run in outcomes):
        raise UsageError("outcomes: expected at least one run, none empty")
    runs = [np.asarray(run, float) for run in outcomes]
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    for index in range(resamples):
        drawn = random.integers(len(runs), size=len(runs))
        means[index] = np.mean([random.choice(runs[run], len(runs[run])).mean() for run in drawn])
    low, high = np.quantile(means, [0.5 - confidence / 2, 0.5 + confidence / 2])
    pooled = np.concatenate(runs)
    wilson_low, wilson_high = wilson_interval(int(pooled.sum()), len(pooled), confidence=confidence)
    mean = float(np.mean([run.mean() for run in runs]))
    return mean, min(float(low), wilson_low), max(float(high), wilson_high)
