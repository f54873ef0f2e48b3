"""Intervals of tables whose evaluations stop early: nothing that assumes a fixed number of episodes.

All runs of a number get confidence sequences that hold at once (`simultaneous_bounds`). Every number here rises (or
falls) with each run's score, so it lies between its values at the lows and at the highs. This is about the trained
policies on other episodes, says nothing of other training seeds, and is wider than an interval for a fixed number.
The paired permutation test stays: under its hypothesis the two are alike, and with them the times at which they stop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from embodied.bench.cells import CellResult
from embodied.bench.statistics.aggregates import AGGREGATES, Estimate
from embodied.bench.statistics.improvement import improvement_value
from embodied.bench.statistics.paired import Comparison
from embodied.bench.statistics.profiles import Profile, performance_profile
from embodied.bench.statistics.sequential import simultaneous_bounds
from embodied.bench.tables.contenders import Column, Entry


def stops_early(entries: Sequence[Entry]) -> bool:
    """Whether a run among them might have stopped before all planned episodes."""
    return any(entry.sequential for entry in entries)


def run_bounds(entries: Sequence[Entry]) -> list[np.ndarray]:
    """Of each entry the bounds of its runs, [runs, 2], that hold for all runs of all entries at once."""
    found = simultaneous_bounds([run.episode_scores for entry in entries for run in entry.runs])
    ends = np.cumsum([len(entry.runs) for entry in entries])[:-1]
    return np.split(found, ends)


def bounded_aggregates(entries: Sequence[Entry]) -> dict[str, Estimate]:
    """Every aggregate of `AGGREGATES`."""
    sizes = [len(entry.runs) for entry in entries]
    bounds = np.concatenate(run_bounds(entries))
    rows = np.stack([np.concatenate([entry.scores for entry in entries]), bounds[:, 0], bounds[:, 1]])
    found = {}
    for name, function in AGGREGATES.items():
        value, *ends = (float(number) for number in function(rows, sizes))
        found[name] = Estimate(value=value, low=min(ends), high=max(ends))
    return found


def bounded_profile(entries: Sequence[Entry], thresholds: np.ndarray) -> Profile:
    """The performance profile between those of the lows and of the highs."""
    bounds = run_bounds(entries)
    low, high = (
        performance_profile([rows[:, end] for rows in bounds], thresholds, resamples=1).share for end in (0, 1)
    )
    share = performance_profile([entry.scores for entry in entries], thresholds, resamples=1).share
    return Profile(thresholds=thresholds, share=share, low=low, high=high)


def bounded_improvement(ours: Sequence[Entry], theirs: Sequence[Entry]) -> Estimate:
    """P(ours > theirs), over tasks that both have."""
    bounds = run_bounds([*ours, *theirs])
    mine, its = bounds[: len(ours)], bounds[len(ours) :]
    return Estimate(
        value=improvement_value([entry.scores for entry in ours], [entry.scores for entry in theirs]),
        low=improvement_value([rows[:, 0] for rows in mine], [rows[:, 1] for rows in its]),
        high=improvement_value([rows[:, 1] for rows in mine], [rows[:, 0] for rows in its]),
    )


def bounded_comparison(
    comparison: Comparison, ours: Mapping[Column, Entry], theirs: Mapping[Column, Entry]
) -> Comparison:
    """A comparison over common seeds with the bounds of its difference, and no estimate of seeds."""
    pairs = []
    for column, entry in ours.items():
        common = set(entry.seeds) & set(theirs.get(column, Entry()).seeds)
        if common:
            pairs.append(tuple(_of_seeds(side, common) for side in (entry, theirs[column])))
    bounds = run_bounds([side for pair in pairs for side in pair])
    lows = [float((mine[:, 0] - its[:, 1]).mean()) for mine, its in zip(bounds[::2], bounds[1::2], strict=True)]
    highs = [float((mine[:, 1] - its[:, 0]).mean()) for mine, its in zip(bounds[::2], bounds[1::2], strict=True)]
    return replace(comparison, low=float(np.mean(lows)), high=float(np.mean(highs)), seeds_needed=None, bounded=True)


def _of_seeds(entry: Entry, seeds: set[int]) -> Entry:
    return Entry(runs=tuple(run for run in entry.runs if run.cell.seed in seeds))


def early_stopping_notes(results: Sequence[CellResult]) -> list[str]:
    """What a reader must know of a table whose cells might stop early."""
    tests = [result.sequential for result in results if result.sequential and result.episodes]
    if not tests:
        return []
    stopped = sum(result.stopped_early for result in results if result.episodes)
    reasons = [
        f"{name.replace('_', ' ')} {tests[0][name]:g}"
        for name in ("half_width", "threshold")
        if tests[0].get(name) is not None
    ]
    return [
        f"{stopped} of {len(tests)} evaluations stopped early by a sequential test ({', '.join(reasons)}): all "
        "intervals here are those of confidence sequences, about these trained policies and not about other seeds"
    ]
