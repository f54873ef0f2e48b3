"""What the demonstrations of a benchmark cost: they belong to no cell, since all cells of a task share them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from embodied.bench.plan import Recipe, load_plan
from embodied.bench.result_files import file_name
from embodied.bench.work_list import COLLECT, LIST, WorkList
from embodied.core.errors import UserError
from embodied.core.files import write_json

STORES = "stores"  # folder of a benchmark


@dataclass(frozen=True, kw_only=True, order=True)
class StoreCost:
    """Of collecting a store, or of finding it in the cache.

    Args:
        store: its name in the cache.
        env, task, variant: whose demonstrations they are.
        episodes: how many; `frames` of all of them, 0 where that was not kept.
        fingerprint: of the demonstrations; empty where it was not kept.
        seconds: that it took this benchmark.
        cpu_seconds: of the worker and its simulator processes; None where it was not measured.
        begun_before: whether the cache had the store, or a part of it, so that the seconds are not those of all of it.
    """

    store: str
    env: str
    task: str
    variant: str
    episodes: int
    frames: int = 0
    fingerprint: str = ""
    seconds: float = 0.0
    cpu_seconds: float | None = None
    begun_before: bool = False


def cost_of(recipe: Recipe, **measured: Any) -> StoreCost:
    """Of the demonstrations of a recipe; `measured` are further fields."""
    env = recipe.settings["env"]
    return StoreCost(
        store=recipe.store,
        env=str(env["suite"]),
        task=str(env["task"]),
        variant=str(env.get("visuals", "static")),
        episodes=int(recipe.collect["episodes"]),
        **measured,
    )


def save_store_cost(folder: Path, cost: StoreCost) -> None:
    """Write what a store cost; what an earlier run of this benchmark has written of the same demonstrations stays."""
    path = folder / STORES / f"{file_name(cost.store)}.json"
    if path.is_file() and _load(path).fingerprint == cost.fingerprint:
        return
    write_json(path, asdict(cost))


def load_store_costs(folder: Path) -> list[StoreCost]:
    """What the stores of the benchmark in a folder cost; of results of an older version, as its work list has it.

    Raises:
        UserError: a record is damaged.
    """
    found = {cost.store: cost for cost in map(_load, sorted((folder / STORES).glob("*.json")))}
    plan = load_plan(folder)
    if plan is not None and (folder / LIST).is_file():
        recipes = {recipe.store: recipe for recipe in plan.recipes.values()}
        with WorkList(folder) as work:
            for key, seconds in work.seconds().items():
                kind, _, store = key.partition("/")
                if kind == COLLECT and store in recipes and store not in found:
                    found[store] = cost_of(recipes[store], seconds=seconds)
    return sorted(found.values(), key=lambda cost: (cost.env, cost.task, cost.variant, cost.store))


def _load(path: Path) -> StoreCost:
    try:
        return StoreCost(**json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it") from error
