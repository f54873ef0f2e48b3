"""The numbers of a benchmark: per scene a ranking, comparisons, profiles and how stable the ranks are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from embodied.bench.cells import CellResult
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.statistics.paired import Comparison
from embodied.bench.statistics.profiles import Profile
from embodied.bench.statistics.ranks import RankStability
from embodied.bench.tables.contenders import BASELINES, SCENES, Column, Contender, Entry, contender_of


@dataclass(frozen=True, kw_only=True)
class Row:
    """A contender in a scene.

    Args:
        contender: whose row it is.
        rank: 1 for the best; None for the oracle and for who lacks a task.
        entries: by task, also empty ones.
        aggregates: by name, see `statistics.aggregates`; empty where nothing succeeded. They are over the tasks that
            the contender has.
        profile: its performance profile.
        improvement: probability of improvement over the baseline, on their common tasks.
        versus: comparison with the baseline over common seeds.
        holm_p: of that comparison, corrected for all rows of the scene.
        versus_next: comparison with the contender one rank below, over common seeds.
        by_demos: interquartile mean by number of demonstrations, where the scene has several.
    """

    contender: Contender
    rank: int | None
    entries: Mapping[Column, Entry]
    aggregates: Mapping[str, Estimate]
    profile: Profile | None
    improvement: Estimate | None = None
    versus: Comparison | None = None
    holm_p: float | None = None
    versus_next: Comparison | None = None
    by_demos: Mapping[int, Estimate] = field(default_factory=dict)

    @property
    def tasks(self) -> int:
        """Tasks with at least one run."""
        return sum(bool(entry.runs) for entry in self.entries.values())

    @property
    def seed_counts(self) -> tuple[int, int]:
        """Fewest and most runs of the tasks that have any."""
        counts = [len(entry.runs) for entry in self.entries.values() if entry.runs]
        return (min(counts), max(counts)) if counts else (0, 0)

    @property
    def failures(self) -> list[CellResult]:
        return [result for entry in self.entries.values() for result in entry.failed]

    @property
    def runs(self) -> list[CellResult]:
        return [result for entry in self.entries.values() for result in entry.runs]


@dataclass(frozen=True, kw_only=True)
class Scene:
    """All results of one kind of scene; rows best first, then who lacks tasks."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    baseline: Contender | None
    pairwise: Mapping[tuple[Contender, Contender], float]
    ranks: RankStability | None
    ranked: Sequence[Contender]

    @property
    def stops_early(self) -> bool:
        """Whether evaluations might end before all planned episodes."""
        return any(entry.sequential for row in self.rows for entry in row.entries.values())

    @property
    def title(self) -> str:
        return SCENES.get(self.name, self.name)


@dataclass(frozen=True, kw_only=True)
class BenchTables:
    """Everything a report shows."""

    suite: str
    protocol: str
    scenes: Sequence[Scene]
    results: Sequence[CellResult]
    notes: Sequence[str]

    @property
    def failures(self) -> list[CellResult]:
        return [result for result in self.results if result.status != "done" or not result.episodes]

    @cached_property
    def contenders(self) -> list[Contender]:
        """In one order for all scenes, so that each keeps its colour: others before baselines."""
        found = {contender_of(result) for result in self.results}
        places = {name: place for place, name in enumerate(BASELINES)}
        return sorted(found, key=lambda contender: (places.get(contender.encoder, -1), contender))
