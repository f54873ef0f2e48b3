"""How often a ranking holds when the seeds are drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from embodied.bench.statistics.aggregates import Scores, check_scores, iqm
from embodied.core.errors import UsageError

RESAMPLES = 2_000


@dataclass(frozen=True, kw_only=True)
class RankStability:
    """Of methods ranked by their interquartile mean.

    Args:
        order: the methods by rank, best first, as places in the input.
        probabilities: share of the bootstrap samples in which a method has a rank, [methods, ranks], in the input's
            order of methods.
        above_next: for each rank but the last, the share of the samples in which its method stays above the next one.
        whole: share of the samples in which the whole order holds.
    """

    order: list[int]
    probabilities: np.ndarray
    above_next: list[float]
    whole: float


def rank_stability(methods: Sequence[Scores], *, resamples: int = RESAMPLES, seed: int = 0) -> RankStability:
    """Rank distribution under the stratified bootstrap over seeds.

    Runs with the same place in their arrays are a common seed (same evaluation episodes) and are drawn together for
    all methods: the luck they share moves no rank. Equal scores are ordered at random, so that equals share ranks.

    Args:
        methods: for each, one array per task; within a task all arrays have the same length, at least 2.
        resamples, seed: of the bootstrap.
    """
    scores = [check_scores(method) for method in methods]
    shapes = {tuple(len(task) for task in method) for method in scores}
    if len(shapes) != 1 or min(next(iter(shapes))) < 2:
        raise UsageError("methods: expected the same common seeds for all within each task, at least two")
    sizes = next(iter(shapes))
    random = np.random.default_rng(seed)
    drawn = []
    for task, size in enumerate(sizes):
        places = random.integers(size, size=(resamples, size))
        drawn.append(np.stack([method[task][places] for method in scores]))  # (methods, R, size)
    values = iqm(np.concatenate(drawn, axis=-1), sizes)  # (methods, R)
    observed = iqm(np.stack([np.concatenate(method) for method in scores]), sizes)
    order = np.argsort(-observed, kind="stable")
    sampled = np.lexsort((random.random(values.shape), -values), axis=0)  # methods by rank in each sample
    ranks = np.argsort(sampled, axis=0)
    counts = [np.bincount(row, minlength=len(scores)) for row in ranks]
    better = [ranks[first] < ranks[second] for first, second in pairwise(order)]
    return RankStability(
        order=[int(place) for place in order],
        probabilities=np.stack(counts) / resamples,
        above_next=[float(row.mean()) for row in better],
        whole=float(np.all(better, axis=0).mean()) if better else 1.0,
    )
