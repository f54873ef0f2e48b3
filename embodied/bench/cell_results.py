"""From the run of a cell that is done to its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from embodied.bench.cells import Cell, CellResult, Episode
from embodied.bench.phases import AnyExperiment, phase_cpu_seconds
from embodied.bench.plan import Plan
from embodied.bench.results import sequential_record
from embodied.bench.suite import tries_static
from embodied.core.run_folder import RunFolder, read_metrics
from embodied.datasets.store.episode_store import EpisodeStore

PHASES = {"reinforce": "train"}  # that results call otherwise


@dataclass(frozen=True, kw_only=True)
class OpenCell:
    """A cell that has been trained, or needs no training of its own.

    Args:
        cell: of the benchmark.
        experiment: of the cell.
        run: its folder.
        encoder_fingerprint: of the frozen encoder; empty for one that learns along.
    """

    cell: Cell
    experiment: AnyExperiment
    run: RunFolder
    encoder_fingerprint: str


def result_of(opened: OpenCell, plan: Plan, folder: Path, *, device: str, versions: Mapping[str, str]) -> CellResult:
    """The result of a cell whose reported episodes are recorded.

    Args:
        opened: the cell.
        plan: of the benchmark in `folder`.
        folder: which the run is named relative to.
        device: that it ran on: `cpu`, `cuda`, `cuda:<n>`.
        versions: of the packages.
    """
    cell, experiment, run = opened.cell, opened.experiment, opened.run
    evaluated = run.result("evaluate")
    assert evaluated is not None, run.path
    curve = [] if tries_static(cell.variant) else learning_curve(run)
    return CellResult(
        cell=cell,
        protocol=plan.protocol_hash,
        suite=plan.name,
        status="done",
        episodes=[
            Episode(seed=each["seed"], success=each["success"], score=each["score"], steps=each["steps"])
            for each in evaluated["outcomes"]
        ],
        best_score=max(score for _, score in curve) if curve else None,
        curve=curve,
        seconds={PHASES.get(name, name): value for name, value in run.phase_seconds().items()},
        cpu_seconds={PHASES.get(name, name): value for name, value in phase_cpu_seconds(run).items()},
        sequential=sequential_record(experiment),
        device=torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else device,
        encoder_fingerprint=opened.encoder_fingerprint,
        demos_fingerprint=EpisodeStore.open(experiment.store).fingerprint() if experiment.store else "",
        run=str(run.path.relative_to(folder)),
        versions=dict(versions),
    )


def learning_curve(run: RunFolder) -> list[list[float]]:
    """Mean score on the selection episodes by step of the checkpoints, [[step, score], ...]."""
    selected: Mapping[str, Any] = run.result("select") or {}
    rows = selected.get("checkpoints") or [row for row in read_metrics(run.path / "metrics.jsonl") if "score" in row]
    return [[float(row["step"]), float(row["score"])] for row in rows]
