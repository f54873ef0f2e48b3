"""From results to the numbers that tables show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from embodied.bench.cells import CellResult
from embodied.bench.statistics.aggregates import Estimate, aggregates
from embodied.bench.statistics.improvement import improvement_value, probability_of_improvement
from embodied.bench.statistics.paired import Comparison, compare_paired, holm
from embodied.bench.statistics.profiles import Profile, performance_profile
from embodied.bench.statistics.ranks import RankStability, rank_stability
from embodied.bench.tables.checks import check_results, version_notes
from embodied.bench.tables.contenders import BASELINES, SCENES, Column, Contender, Entry, contender_of, make_entry
from embodied.bench.tables.early_stopped import (
    bounded_aggregates,
    bounded_comparison,
    bounded_improvement,
    bounded_profile,
    early_stopping_notes,
    stops_early,
)
from embodied.bench.tables.scenes import BenchTables, Row, Scene
from embodied.core.errors import unknown_name

THRESHOLDS = np.linspace(0, 1, 51)
Entries = Mapping[Contender, Mapping[Column, Entry]]


def build_tables(
    results: Sequence[CellResult],
    *,
    suite: str | None = None,
    baseline: str | None = None,
    protocols: Mapping[str, Mapping[str, Any]] | None = None,
    notes: Sequence[str] = (),
) -> BenchTables:
    """Check and aggregate results.

    Args:
        results: of one protocol, done and failed.
        suite: its name for the title; None: as the results say.
        baseline: what rows are compared with: an encoder or `<encoder>/<controller>`; None: `pixels`, else the first
            other baseline there is.
        protocols: see `check_results`.
        notes: to show with the tables.

    Raises:
        UserError: see `check_results`.
        UsageError: nothing is called `baseline`.
    """
    check_results(results, protocols)
    grouped: dict[str, dict[Contender, dict[Column, list[CellResult]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for result in results:
        column = Column(*result.cell.group)
        grouped[column.scene][contender_of(result)][column].append(result)
    named = find_contenders(baseline, {contender_of(result) for result in results}) if baseline else None
    order = [*SCENES, *sorted(set(grouped) - set(SCENES))]
    scenes = [_build_scene(name, grouped[name], named) for name in order if name in grouped]
    return BenchTables(
        suite=suite or ", ".join(sorted({result.suite for result in results})),
        protocol=results[0].protocol,
        scenes=scenes,
        results=results,
        notes=[*notes, *early_stopping_notes(results), *version_notes(results)],
    )


def find_contenders(name: str, contenders: set[Contender]) -> list[Contender]:
    """Those that a name means: an encoder, or `<encoder>/<controller>`.

    Raises:
        UsageError: there is none.
    """
    found = [item for item in contenders if name in (item.encoder, f"{item.encoder}/{item.controller}", item.label)]
    if not found:
        raise unknown_name("encoder in these results", name, {item.encoder for item in contenders})
    return sorted(found, key=lambda item: (item.controller != "mlp", item))


def _build_scene(
    name: str, grouped: Mapping[Contender, Mapping[Column, list[CellResult]]], named: list[Contender] | None
) -> Scene:
    columns = sorted({column for tasks in grouped.values() for column in tasks})
    entries = {
        contender: {column: make_entry(tasks.get(column, [])) for column in columns}
        for contender, tasks in grouped.items()
    }
    found = {contender: _aggregate(list(of.values())) for contender, of in entries.items()}
    baseline = _choose_baseline(entries, named)
    versus = {
        contender: compare_entries(of, entries[baseline])
        for contender, of in entries.items()
        if baseline is not None and contender != baseline
    }
    tested = [contender for contender, comparison in versus.items() if comparison is not None]
    corrected = dict(zip(tested, holm([_p(versus[contender]) for contender in tested]), strict=True))
    complete = {contender: all(entry.runs for entry in of.values()) for contender, of in entries.items()}
    order = sorted(
        entries, key=lambda item: (not complete[item], -found[item]["iqm"].value if found[item] else 0.0, item)
    )
    ranked = [contender for contender in order if complete[contender] and not contender.oracle]
    following = dict(pairwise(ranked))
    rows = [
        Row(
            contender=contender,
            rank=ranked.index(contender) + 1 if contender in ranked else None,
            entries=entries[contender],
            aggregates=found[contender],
            profile=_profile(entries[contender]),
            improvement=_improvement(entries, contender, baseline),
            versus=versus.get(contender),
            holm_p=corrected.get(contender),
            versus_next=(
                compare_entries(entries[contender], entries[following[contender]]) if contender in following else None
            ),
            by_demos=_by_demos(entries[contender]),
        )
        for contender in order
    ]
    return Scene(
        name=name,
        columns=columns,
        rows=rows,
        baseline=baseline,
        pairwise=_pairwise(entries, [item for item in order if found[item]]),
        ranks=_ranks([entries[item] for item in ranked]),
        ranked=ranked,
    )


def _p(comparison: Comparison | None) -> float:
    assert comparison is not None
    return comparison.p


def _aggregate(entries: Sequence[Entry]) -> dict[str, Estimate]:
    tried = [entry for entry in entries if entry.runs]
    if stops_early(tried):
        return bounded_aggregates(tried)
    return aggregates([entry.scores for entry in tried]) if tried else {}


def _profile(entries: Mapping[Column, Entry]) -> Profile | None:
    tried = [entry for entry in entries.values() if entry.runs]
    if stops_early(tried):
        return bounded_profile(tried, THRESHOLDS)
    return performance_profile([entry.scores for entry in tried], THRESHOLDS) if tried else None


def _by_demos(entries: Mapping[Column, Entry]) -> dict[int, Estimate]:
    numbers = sorted({column.demos for column in entries})
    if len(numbers) < 2:
        return {}
    found = {
        number: _aggregate([entries[column] for column in entries if column.demos == number]) for number in numbers
    }
    return {number: estimates["iqm"] for number, estimates in found.items() if estimates}


def _choose_baseline(entries: Entries, named: list[Contender] | None) -> Contender | None:
    """The first of the named ones, else of the usual ones, that has a run in this scene."""
    if named is None:
        usual = [item for item in entries if item.baseline]
        named = sorted(usual, key=lambda item: (BASELINES.index(item.encoder), item.controller != "mlp", item))
    return next((item for item in named if item in entries and any(of.runs for of in entries[item].values())), None)


def compare_entries(ours: Mapping[Column, Entry], theirs: Mapping[Column, Entry]) -> Comparison | None:
    """Over the seeds that both have in a task; None where there are none."""
    differences = []
    for column, entry in ours.items():
        other = theirs.get(column, Entry())
        common = sorted(set(entry.seeds) & set(other.seeds))
        if common:
            mine, its = (dict(zip(item.seeds, item.scores, strict=True)) for item in (entry, other))
            differences.append(np.array([mine[seed] - its[seed] for seed in common]))
    if not differences:
        return None
    found = compare_paired(differences)
    early = stops_early([*ours.values(), *theirs.values()])
    return bounded_comparison(found, ours, theirs) if early else found


def _common(ours: Mapping[Column, Entry], theirs: Mapping[Column, Entry]) -> tuple[list[Entry], list[Entry]]:
    """Both on the tasks that both have."""
    both = [column for column in ours if ours[column].runs and column in theirs and theirs[column].runs]
    return [ours[column] for column in both], [theirs[column] for column in both]


def improvement_over(ours: Mapping[Column, Entry], theirs: Mapping[Column, Entry]) -> Estimate | None:
    """Probability of improvement on the tasks that both have; None where there are none."""
    mine, its = _common(ours, theirs)
    if stops_early([*mine, *its]):
        return bounded_improvement(mine, its)
    return probability_of_improvement(_scores(mine), _scores(its)) if mine else None


def _scores(entries: Sequence[Entry]) -> list[np.ndarray]:
    return [entry.scores for entry in entries]


def _improvement(entries: Entries, contender: Contender, baseline: Contender | None) -> Estimate | None:
    if baseline is None or contender == baseline:
        return None
    return improvement_over(entries[contender], entries[baseline])


def _pairwise(entries: Entries, contenders: Sequence[Contender]) -> dict[tuple[Contender, Contender], float]:
    """P(row improves on column) of every pair, without intervals."""
    found = {}
    for first in contenders:
        for second in contenders:
            ours, theirs = _common(entries[first], entries[second])
            if first != second and ours:
                found[first, second] = improvement_value(_scores(ours), _scores(theirs))
    return found


def _ranks(entries: Sequence[Mapping[Column, Entry]]) -> RankStability | None:
    """Over the seeds that all of them have; None where a task has fewer than two of those, or runs stop early."""
    if len(entries) < 2 or stops_early([entry for of in entries for entry in of.values()]):
        return None
    common = {column: sorted(set.intersection(*(set(of[column].seeds) for of in entries))) for column in entries[0]}
    if min(len(seeds) for seeds in common.values()) < 2:
        return None
    return rank_stability(
        [[entry.scores[np.isin(entry.seeds, common[column])] for column, entry in of.items()] for of in entries]
    )
