"""From an experiment to the recipe that all cells of its kind share, and from recipe and cell to an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch

from embodied.bench.cells import Cell
from embodied.bench.experiment import Experiment
from embodied.bench.phases import AnyExperiment
from embodied.bench.plan import IMITATION, PLANNING, REINFORCEMENT, Recipe
from embodied.bench.planning import Planning
from embodied.bench.reinforcement import Reinforcement
from embodied.bench.session import Session
from embodied.bench.statistics.sequential import SequentialTest
from embodied.bench.suite import options_of
from embodied.core.files import cache_folder
from embodied.policies.action_space import ActionSpace
from embodied.training.imitate import Training

# What the cell or the machine decides, and `stopping`, which stands once in the plan.
NOT_IN_A_RECIPE = (
    "store", "encoder", "demos", "seed", "shift", "device", "workers", "slots", "record", "cache", "cache_bytes",
    "stopping", "session", "recorded", "embodiment",
)  # fmt: skip
SLOTS = 4  # episodes side by side, the same number on every machine: batches of another size round otherwise


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where cells run; no result depends on it, but for the rounding of another device or number of threads.

    Args:
        device: `cpu`, `cuda`, `cuda:<n>`.
        processes: simulator processes of a worker; 0: its own process simulates.
        threads: of torch.
        cache: of stores and features; `cache_bytes` of the features of all encoders.
    """

    device: str = "cpu"
    processes: int = 0
    threads: int = 1
    cache: Path = field(default_factory=cache_folder)
    cache_bytes: int | None = None

    @property
    def stores(self) -> Path:
        return self.cache / "stores"


def recipe_of(experiment: AnyExperiment, collect: Mapping[str, Any], *, proprioception: bool) -> Recipe:
    """The recipe of an experiment's kind.

    Args:
        experiment: with the suite's settings; its encoder and seed do not matter.
        collect: the behaviour that collects its demonstrations, and how many `episodes`; empty without any.
        proprioception: whether the task has any.
    """
    settings: dict[str, Any] = {}
    for each in fields(experiment):
        value = getattr(experiment, each.name)
        if each.name in NOT_IN_A_RECIPE:
            continue
        if isinstance(value, Training | ActionSpace):
            value = value.record()
        elif isinstance(value, Path):
            value = str(value)
        settings[each.name] = dict(value) if isinstance(value, Mapping) else value
    kind = REINFORCEMENT if isinstance(experiment, Reinforcement) else IMITATION
    if isinstance(experiment, Planning):
        kind = PLANNING
        settings["policy"]["model_fingerprint"] = experiment.known_model  # a folder says nothing of its weights
    return Recipe(
        kind=kind,
        settings=settings,
        store=experiment.store.name if experiment.store is not None else "",
        collect=dict(collect) if experiment.store is not None else {},
        proprioception=proprioception,
    )


def experiment_of(
    recipe: Recipe,
    cell: Cell,
    place: Place,
    session: Session,
    *,
    record: bool,
    stopping: SequentialTest | None = None,
) -> AnyExperiment:
    """What to run for a cell; of a shifted one, what its policy came of, with the shift in the reported episodes.

    Args:
        recipe: of the cell.
        cell: to run.
        place: where.
        session: what cells of one worker share.
        record: whether the reported episodes are filmed.
        stopping: ends the reported episodes early; of the plan.
    """
    shared: dict[str, Any] = {
        "store": place.stores / recipe.store if recipe.store else None,
        "encoder": cell.weights,
        "demos": cell.demos,
        "seed": cell.seed,
        "shift": options_of(cell.variant),
        "device": torch.device(place.device),
        "workers": place.processes,
        "slots": SLOTS,
        "record": record,
        "stopping": stopping,
        "cache": place.cache,
        "cache_bytes": place.cache_bytes,
        "session": session,
    }
    settings = dict(recipe.settings)
    if recipe.kind == REINFORCEMENT:
        return Reinforcement(**settings, **shared)
    settings["training"] = Training(**settings["training"])
    if settings.get("action_space"):
        settings["action_space"] = ActionSpace.of(settings["action_space"])
    if recipe.kind == PLANNING:
        picture = settings["picture"]
        settings |= {"picture": None if picture is None else Path(picture)}
        return Planning(**settings, **{**shared, "demos": cell.demos if recipe.store else 0})
    return Experiment(**settings, **shared)
