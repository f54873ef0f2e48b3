"""What tables compare (contenders), on what (tasks), apart by what the scene looks like (scenes)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from embodied.bench.cells import SEED, CellResult
from embodied.bench.statistics.aggregates import Estimate
from embodied.bench.statistics.intervals import seeds_interval, wilson_interval
from embodied.bench.statistics.sequential import simultaneous_bounds

ORACLE = "state"  # sees what no robot sees: shown, not ranked
BASELINES = (
    "pixels",
    "random",
    "proprioception",
    "scratch",
    ORACLE,
)  # of every table; the first is the usual reference
SCENES = {
    "static": "Static scene",
    "varied": "Varied scene",
    "shifted": "Shifted scene",
    "unseen": "Unseen episodes",
}
SCENE_TEXTS = {
    "static": "Camera, light and colours are those of the demonstrations in every episode.",
    "varied": "Camera, light, colours and clutter are drawn anew for every demonstration and episode.",
    "shifted": "Policies were trained in the static scene and are tried under visual shifts that they never saw.",
    "unseen": "Policies were trained in the static scene and are tried in episodes of a kind they never saw.",
}


@dataclass(frozen=True, order=True)
class Contender:
    """An encoder under a controller: a row of a table."""

    encoder: str
    controller: str

    @property
    def label(self) -> str:
        """Its name in tables: of a path the last part."""
        return f"{self.short} / {self.controller}"

    @property
    def short(self) -> str:
        """The encoder's name; of a folder the last part."""
        kind, colon, rest = self.encoder.removesuffix(f"/{SEED}").rpartition(":")
        if not rest.startswith(("/", ".", "~")):
            return self.encoder
        parts = Path(rest).parts
        return kind + colon + "/".join(parts[-2:] if len(parts) > 1 and len(parts[-1]) < 8 else parts[-1:])

    @property
    def baseline(self) -> bool:
        return self.encoder in BASELINES

    @property
    def oracle(self) -> bool:
        return self.encoder == ORACLE


@dataclass(frozen=True, order=True)
class Column:
    """A task in one look with some demonstrations: what contenders are tried on."""

    env: str
    task: str
    variant: str
    demos: int

    @property
    def scene(self) -> str:
        for prefix, scene in (("shift:", "shifted"), ("with:", "unseen")):
            if self.variant.startswith(prefix):
                return scene
        return self.variant

    @property
    def shift(self) -> str:
        """`light 3`, `chain=5`; empty for what policies were trained on."""
        return " ".join(self.variant.split(":")[1:]) if self.scene in ("shifted", "unseen") else ""


@dataclass(frozen=True)
class Entry:
    """What a contender did on a task: its runs by seed, and those that failed."""

    runs: tuple[CellResult, ...] = ()
    failed: tuple[CellResult, ...] = ()
    estimate: Estimate | None = field(default=None)

    @property
    def scores(self) -> np.ndarray:
        return np.array([run.score for run in self.runs])

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.cell.seed for run in self.runs)

    @property
    def sequential(self) -> bool:
        """Whether a run might have stopped before all planned episodes: then no interval for a fixed number holds."""
        return any(run.sequential for run in self.runs)

    @property
    def best(self) -> float | None:
        """Mean over seeds of the best checkpoints' scores, None where one has none."""
        found = [run.best_score for run in self.runs if run.best_score is not None]
        return float(np.mean(found)) if found and len(found) == len(self.runs) else None

    @property
    def one_policy_interval(self) -> tuple[float, float] | None:
        """With a single seed: the interval of that one policy's success rate, which says nothing of another training;
        None for scores that are no successes, and where it stopped early, since then the estimate has it."""
        if len(self.runs) != 1 or self.sequential:
            return None
        scores = self.runs[0].episode_scores
        if not set(scores) <= {0.0, 1.0}:
            return None
        return wilson_interval(int(sum(scores)), len(scores))


def contender_of(result: CellResult) -> Contender:
    """The row that a result belongs to."""
    return Contender(result.cell.encoder, result.cell.controller)


def make_entry(results: Iterable[CellResult]) -> Entry:
    """Of the results of one contender on one task."""
    ordered = sorted(results, key=lambda result: result.cell.seed)
    runs = tuple(result for result in ordered if result.status == "done" and result.episodes)
    failed = tuple(result for result in ordered if result not in runs)
    if not runs:
        return Entry(failed=failed)
    scores = [run.episode_scores for run in runs]
    if Entry(runs=runs).sequential:
        bounds = simultaneous_bounds(scores).mean(axis=0)
        value = sum(run.score for run in runs) / len(runs)
        estimate = Estimate(value=value, low=float(bounds[0]), high=float(bounds[1]))
        return Entry(runs=runs, failed=failed, estimate=estimate)
    if len(runs) == 1:
        return Entry(runs=runs, failed=failed, estimate=Estimate(value=runs[0].score))
    mean, low, high = seeds_interval(scores)
    return Entry(runs=runs, failed=failed, estimate=Estimate(value=mean, low=low, high=high))


def column_labels(columns: Sequence[Column]) -> dict[Column, str]:
    """Short names of a scene's tasks: with their suite of simulators, demonstrations and shift where these differ."""
    several_envs = len({column.env for column in columns}) > 1
    several_demos = len({column.demos for column in columns}) > 1
    labels = {}
    for column in columns:
        label = f"{column.env} {column.task}" if several_envs else column.task
        extra = [column.shift] if column.shift else []
        extra += [f"{column.demos} demos"] if several_demos and column.demos else []
        labels[column] = f"{label} ({', '.join(extra)})" if extra else label
    return labels
