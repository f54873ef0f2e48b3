"""Two contenders, or two folders, against each other on their common seeds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from embodied.bench.cells import CellResult
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.statistics.paired import Comparison, holm
from embodied.bench.tables.build import compare_entries, find_contenders, improvement_over
from embodied.bench.tables.contenders import SCENES, Column, Contender, Entry, contender_of, make_entry
from embodied.core.errors import UsageError

Entries = Mapping[Column, Entry]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: its name in the tables, and its results."""

    label: str
    results: Sequence[CellResult]


@dataclass(frozen=True, kw_only=True)
class TaskDuel:
    """The two on one task; `holm_p` is corrected for the tasks of the scene."""

    column: Column
    first: Entry
    second: Entry
    comparison: Comparison | None
    holm_p: float | None = None


@dataclass(frozen=True, kw_only=True)
class Duel:
    """First minus second in one kind of scene, over the seeds and tasks that both have.

    Args:
        first, second: names.
        scene: of `SCENES`.
        overall: over all common tasks; None without any.
        improvement: probability that a run of the first beats one of the second.
        holm_p: of `overall`, corrected for all duels that were asked for at once.
        tasks: one by one.
        left_out: tasks that only one of them has.
    """

    first: str
    second: str
    scene: str
    overall: Comparison | None
    improvement: Estimate | None
    tasks: Sequence[TaskDuel]
    left_out: Sequence[Column]
    holm_p: float | None = None

    @property
    def title(self) -> str:
        return SCENES.get(self.scene, self.scene)


def make_duels(pairs: Sequence[tuple[Side, Side]]) -> list[Duel]:
    """A duel per pair and scene."""
    duels = []
    for first, second in pairs:
        ours, theirs = _by_scene(first.results), _by_scene(second.results)
        for scene in sorted(set(ours) & set(theirs), key=lambda name: ([*SCENES, name].index(name), name)):
            duels.append(_duel(first.label, second.label, scene, ours[scene], theirs[scene]))
    tested = [duel for duel in duels if duel.overall is not None]
    corrected = dict(zip(map(id, tested), holm([duel.overall.p for duel in tested if duel.overall]), strict=True))
    return [replace(duel, holm_p=corrected.get(id(duel))) for duel in duels]


def _by_scene(results: Sequence[CellResult]) -> dict[str, dict[Column, Entry]]:
    grouped: dict[Column, list[CellResult]] = defaultdict(list)
    for result in results:
        grouped[Column(*result.cell.group)].append(result)
    found: dict[str, dict[Column, Entry]] = defaultdict(dict)
    for column in sorted(grouped):
        found[column.scene][column] = make_entry(grouped[column])
    return found


def _duel(first: str, second: str, scene: str, ours: Entries, theirs: Entries) -> Duel:
    both = [column for column in ours if ours[column].runs and column in theirs and theirs[column].runs]
    tasks = [
        TaskDuel(
            column=column,
            first=ours[column],
            second=theirs[column],
            comparison=compare_entries({column: ours[column]}, theirs),
        )
        for column in both
    ]
    p_values = holm([task.comparison.p for task in tasks if task.comparison is not None])
    corrected = iter(p_values)
    return Duel(
        first=first,
        second=second,
        scene=scene,
        overall=compare_entries({column: ours[column] for column in both}, theirs),
        improvement=improvement_over(ours, theirs),
        tasks=[replace(task, holm_p=next(corrected)) if task.comparison is not None else task for task in tasks],
        left_out=sorted(({*ours} | {*theirs}) - {*both}),
    )


def pairs_of_one(results: Sequence[CellResult], first: str, second: str) -> list[tuple[Side, Side]]:
    """The pairs that two names mean in one benchmark: under each controller that both have; else the only one each has.

    Raises:
        UsageError: a name means nothing, or the two never meet under one controller and are not single.
    """
    present = {contender_of(result) for result in results}
    ours, theirs = find_contenders(first, present), find_contenders(second, present)
    pairs = [(one, other) for one in ours for other in theirs if one.controller == other.controller and one != other]
    if not pairs and len(ours) == len(theirs) == 1 and ours != theirs:
        pairs = [(ours[0], theirs[0])]
    if not pairs:
        raise UsageError(
            f"{first!r} and {second!r} have no controller in common: name one of each, as in "
            f"{ours[0].encoder}/{ours[0].controller} {theirs[0].encoder}/{theirs[0].controller}"
        )
    return [tuple(_side(item, results, item.label) for item in pair) for pair in pairs]  # type: ignore[misc]


def pairs_of_two(
    first: tuple[Path, Sequence[CellResult]], second: tuple[Path, Sequence[CellResult]]
) -> list[tuple[Side, Side]]:
    """The pairs of two folders: their own encoder where each has one of its own, else every contender with itself.

    Raises:
        UsageError: there is nothing that both have.
    """
    (path, results), (other_path, other_results) = first, second
    names = _folder_names(path, other_path)
    ours, theirs = ({contender_of(result) for result in found} for found in (results, other_results))
    own, its = ({item for item in found if not item.baseline} for found in (ours, theirs))
    if len({item.encoder for item in own}) == len({item.encoder for item in its}) == 1 and not own & its:
        pairs = [(one, other) for one in sorted(own) for other in sorted(its) if one.controller == other.controller]
    else:
        pairs = [(item, item) for item in sorted(ours & theirs)]
    if not pairs:
        raise UsageError(
            f"{path} has {_listed(ours)}, {other_path} has {_listed(theirs)}: nothing that both have; "
            "name what to compare, <folder>:<encoder> <folder>:<encoder>"
        )
    return [
        (
            _side(one, results, f"{names[0]}: {one.label}"),
            _side(other, other_results, f"{names[1]}: {other.label}"),
        )
        for one, other in pairs
    ]


def named_sides(
    operands: Sequence[tuple[Path, str]], loaded: Mapping[Path, Sequence[CellResult]]
) -> list[tuple[Side, Side]]:
    """The pairs of two `<folder>:<name>`."""
    (first_path, first), (second_path, second) = operands
    if first_path == second_path:
        return pairs_of_one(loaded[first_path], first, second)
    chosen = []
    for path, name in operands:
        found = find_contenders(name, {contender_of(result) for result in loaded[path]})
        chosen.append({item.controller: item for item in found})
    common = [name for name in chosen[0] if name in chosen[1]]
    pairs = [(chosen[0][name], chosen[1][name]) for name in common]
    if not pairs:
        pairs = [(next(iter(chosen[0].values())), next(iter(chosen[1].values())))]
    names = _folder_names(first_path, second_path)
    return [
        (
            _side(one, loaded[first_path], f"{names[0]}: {one.label}"),
            _side(other, loaded[second_path], f"{names[1]}: {other.label}"),
        )
        for one, other in pairs
    ]


def _side(contender: Contender, results: Sequence[CellResult], label: str) -> Side:
    return Side(label=label, results=[result for result in results if contender_of(result) == contender])


def _folder_names(first: Path, second: Path) -> tuple[str, str]:
    """Last parts of the paths, as many as tell them apart."""
    for count in range(1, max(len(first.parts), len(second.parts)) + 1):
        names = "/".join(first.parts[-count:]), "/".join(second.parts[-count:])
        if names[0] != names[1]:
            return names
    return str(first), str(second)


def _listed(contenders: set[Contender]) -> str:
    return ", ".join(item.label for item in sorted(contenders)) or "nothing"


def duel_records(duels: Sequence[Duel]) -> list[dict[str, Any]]:
    """One flat record per task, and per duel with `task` empty."""
    rows: list[dict[str, Any]] = []
    for duel in duels:
        rows.append(_record(duel, None, duel.overall, duel.holm_p))
        rows += [_record(duel, task.column, task.comparison, task.holm_p) for task in duel.tasks]
    return rows


def _record(duel: Duel, column: Column | None, comparison: Comparison | None, holm_p: float | None) -> dict[str, Any]:
    return {
        "first": duel.first,
        "second": duel.second,
        "scene": duel.scene,
        "task": column.task if column else "",
        "variant": column.variant if column else "",
        "demos": column.demos if column else None,
        "difference": comparison.difference if comparison else None,
        "low": comparison.low if comparison else None,
        "high": comparison.high if comparison else None,
        "p": comparison.p if comparison else None,
        "p_holm": holm_p,
        "pairs": comparison.pairs if comparison else 0,
        "seeds_needed": comparison.seeds_needed if comparison else None,
    }
