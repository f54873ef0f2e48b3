"""Two methods on common seeds: the mean difference, whether chance explains it, and the seeds that would tell.

A pair is one task and one training seed, which both methods share together with the evaluation episodes of that seed.
The test is the paired permutation test of the mean difference: under the hypothesis that the methods are
alike, every difference could as well have had the other sign. It is preferred to Wilcoxon's signed ranks because it
tests the number that the table shows, because with scores of 20 episodes many differences are exactly zero, which
Wilcoxon throws away, and because it is exact for the few pairs that a benchmark has. Several tests at once are
corrected after Holm (1979), who needs no independence between them.

The tasks and the demonstrations are taken as fixed: it is about other seeds of the training and the episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from statistics import NormalDist

import numpy as np

from embodied.bench.statistics.aggregates import Scores, check_scores, percentile_interval, resampled, task_means

EXACT_PAIRS = 16  # up to here all sign patterns are gone through
SAMPLED_SIGNS = 20_000
MAXIMUM_SEEDS = 1_000  # beyond it the estimate is "more than": nobody runs that many


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Method minus baseline over common seeds.

    Args:
        difference: mean over tasks of the mean difference.
        low, high: its interval; None where a task has a single pair.
        p: of the two-sided permutation test, before Holm's correction.
        smallest_p: the smallest that so many pairs can give, whatever the scores.
        pairs, tasks: what it is over.
        seeds_needed: per task, to tell the two apart; None where that cannot be estimated, or takes more than
            `MAXIMUM_SEEDS`.
        bounded: whether the interval is of confidence sequences and not of other seeds; then nothing is said of seeds.
    """

    difference: float
    low: float | None
    high: float | None
    p: float
    smallest_p: float
    pairs: int
    tasks: int
    seeds_needed: int | None
    bounded: bool = False


def compare_paired(differences: Scores, *, resamples: int = 10_000, seed: int = 0) -> Comparison:
    """Compare two methods by the differences of their scores.

    Args:
        differences: one array per task, a difference for each common seed.
        resamples: of the interval's bootstrap over pairs within tasks.
        seed: of the bootstrap and of sampled sign patterns.
    """
    tasks = check_scores(differences)
    sizes = [len(task) for task in tasks]
    low = high = None
    if min(sizes) >= 2:
        means = task_means(resampled(tasks, resamples=resamples, seed=seed), sizes).mean(axis=-1)
        low, high = percentile_interval(means, 0.95)
    return Comparison(
        difference=float(np.mean([task.mean() for task in tasks])),
        low=low,
        high=high,
        p=permutation_test(tasks, seed=seed),
        smallest_p=2.0 ** (1 - sum(sizes)),
        pairs=sum(sizes),
        tasks=len(tasks),
        seeds_needed=seeds_needed(tasks),
    )


def permutation_test(differences: Scores, *, seed: int = 0) -> float:
    """Two-sided p of the paired permutation (sign-flip) test of the mean over tasks of the mean difference.

    All sign patterns are gone through for up to `EXACT_PAIRS` differences that are not zero; else `SAMPLED_SIGNS` are
    drawn, and counting the observed one among them keeps the test valid (Phipson & Smyth 2010).
    """
    tasks = check_scores(differences)
    weighted = np.concatenate([task / (len(task) * len(tasks)) for task in tasks])
    weighted = weighted[weighted != 0]
    if not len(weighted):
        return 1.0
    observed = abs(weighted.sum()) * (1 - 1e-9)  # rounding must not make an equal pattern smaller
    if len(weighted) <= EXACT_PAIRS:
        patterns = np.arange(2 ** len(weighted))[:, None] >> np.arange(len(weighted)) & 1
        return float((np.abs((2 * patterns - 1) @ weighted) >= observed).mean())
    signs = np.random.default_rng(seed).integers(2, size=(SAMPLED_SIGNS, len(weighted))) * 2 - 1
    return float((1 + (np.abs(signs @ weighted) >= observed).sum()) / (1 + SAMPLED_SIGNS))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p values of several tests, after Holm (1979), in the order given."""
    order = np.argsort(p_values)
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.empty(len(p_values))
    adjusted[order] = np.minimum(np.maximum.accumulate(scaled), 1.0)
    return [float(p) for p in adjusted]


def seeds_needed(differences: Scores, *, power: float = 0.8, alpha: float = 0.05) -> int | None:
    """Seeds per task with which the permutation test finds a difference as large as the observed one.

    Normal approximation of the test: with n seeds of K tasks its mean difference has variance V / (K n) when the
    difference is there and (V + M) / (K n) when signs are flipped, V being the mean variance of the differences within
    a task and M the mean of the tasks' squared mean differences, so that

        n = (z(1 - alpha / 2) * sqrt(V + M) + z(power) * sqrt(V))^2 / (K * difference^2),

    and at least so many that the exact test can go below alpha at all. It is an estimate from an estimate: where the
    observed difference is uncertain, so is n.

    Args:
        differences: see `compare_paired`; None is returned where a task has a single one.
        power: how often the difference is to be found.
        alpha: at which level.

    Returns:
        The number, None where it is above `MAXIMUM_SEEDS` or cannot be estimated.
    """
    tasks = check_scores(differences)
    if min(len(task) for task in tasks) < 2:
        return None
    means = np.array([task.mean() for task in tasks])
    variances = np.array([task.var(ddof=1) for task in tasks])
    noise = np.array([variance / len(task) for variance, task in zip(variances, tasks, strict=True)])
    difference = means.mean()
    if difference == 0:
        return None
    variance = variances.mean()
    squared = max((means**2 - noise).mean(), difference**2)  # unbiased, and no less than it must be
    normal = NormalDist()
    spread = normal.inv_cdf(1 - alpha / 2) * sqrt(variance + squared) + normal.inv_cdf(power) * sqrt(variance)
    least = ceil((1 - np.log2(alpha)) / len(tasks))  # 2^(1 - pairs) <= alpha
    number = max(ceil(spread**2 / (len(tasks) * difference**2)), least, 2)
    return number if number <= MAXIMUM_SEEDS else None
