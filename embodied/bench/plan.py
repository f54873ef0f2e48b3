"""A plan: a suite with every setting resolved, as cells are run by it and as the protocol's hash stands for it.

A recipe is one task in one look under one controller. It holds all that decides a cell's number but the cell itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied.bench.cells import Cell, protocol_hash
from embodied.bench.suite import LEARNS_ALONG, Suite, check_encoder_name, tries_static
from embodied.core.errors import UserError
from embodied.core.files import write_json

PLAN = "bench.json"
FORMAT = 1
IMITATION, REINFORCEMENT, PLANNING = "imitation", "reinforcement", "planning"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to run the cells of one task, look and controller.

    Args:
        kind: `imitation`, `reinforcement` or `planning`.
        settings: of the `Experiment`, `Reinforcement` or `Planning`, JSON-able; not what the cell or the machine
            decides.
        store: name of the folder of the demonstrations in the cache; empty without any.
        collect: the behaviour that collects them, and how many `episodes`.
        proprioception: whether the task has any.
    """

    kind: str
    settings: Mapping[str, Any]
    store: str = ""
    collect: Mapping[str, Any]
    proprioception: bool


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A suite, ready to be run.

    Args:
        suite: its name and description.
        tasks: env, task, variants and demos of each, in the order of tables.
        controllers: their names; `baselines`: encoder -> controllers.
        recipes: by `recipe_key`.
        seeds: first evaluation seeds by purpose.
        early_stopping: of the reported episodes, see `SequentialTest`; empty for a fixed number, as it is by default.
        source: hash of what the plan was made from, to see without making it again that it would come out the same.
        tried_by: see `Suite`; like the tasks it says which cells there are, and is no part of the protocol.
    """

    suite: Mapping[str, str]
    tasks: Sequence[Mapping[str, Any]]
    controllers: Sequence[str]
    baselines: Mapping[str, Sequence[str]]
    recipes: Mapping[str, Recipe]
    seeds: Mapping[str, int]
    source: str
    early_stopping: Mapping[str, Any] = field(default_factory=dict)
    tried_by: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def protocol(self) -> dict[str, Any]:
        """What the hash is made of. A part that came later stands in it only where it is used: hashes stay."""
        recipes = {key: asdict(recipe) for key, recipe in self.recipes.items()}
        stopping = {"early_stopping": dict(self.early_stopping)} if self.early_stopping else {}
        return {"recipes": recipes, "seeds": dict(self.seeds), **stopping}

    @property
    def protocol_hash(self) -> str:
        return protocol_hash(self.protocol)

    @property
    def name(self) -> str:
        return self.suite["name"]

    def recipe(self, cell: Cell) -> Recipe:
        """How to run a cell; of a shifted one, how its policy was trained."""
        variant = "static" if tries_static(cell.variant) else cell.variant
        exception = recipe_key(cell.env, cell.task, variant, cell.controller, cell.encoder)
        plain = recipe_key(cell.env, cell.task, variant, cell.controller)
        return self.recipes[exception if exception in self.recipes else plain]

    def cells(self, encoders: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
        """All cells of these encoders and of the baselines.

        Raises:
            UsageError: an encoder's name is none.
        """
        named = list(dict.fromkeys([*self.baselines, *(check_encoder_name(encoder) for encoder in encoders)]))
        return [cell for encoder in named for cell in self._cells_of(encoder, seeds)]

    def _cells_of(self, encoder: str, seeds: Sequence[int]) -> Iterator[Cell]:
        controllers = self.baselines.get(encoder, self.controllers)
        for task in self.tasks:
            for variant in (name for name in task["variants"] if encoder in self.tried_by.get(name, [encoder])):
                for controller in controllers:
                    for demos in task["demos"]:
                        for seed in seeds:
                            cell = Cell(
                                env=task["env"],
                                task=task["task"],
                                variant=variant,
                                controller=controller,
                                encoder=encoder,
                                demos=demos,
                                seed=seed,
                            )
                            # Without proprioception that baseline has nothing to see.
                            if encoder != "proprioception" or self.recipe(cell).proprioception:
                                yield cell


def recipe_key(env: str, task: str, variant: str, controller: str, encoder: str = "") -> str:
    """Name of a recipe; with an encoder, that of its exception."""
    return "/".join((env, task, variant, controller, *([encoder] if encoder == LEARNS_ALONG else [])))


def plan_tasks(suite: Suite) -> list[dict[str, Any]]:
    """The tasks of a suite, JSON-able."""
    return [
        {"env": task.env, "task": task.task, "variants": list(task.variants), "demos": list(task.demos)}
        for task in suite.tasks
    ]


def save_plan(plan: Plan, folder: Path) -> None:
    """Write `bench.json`."""
    record = {"format": FORMAT, "protocol_hash": plan.protocol_hash, **asdict(plan)}
    for name in ("early_stopping", "tried_by"):  # which older versions do not know
        if not record[name]:
            del record[name]
    write_json(folder / PLAN, record)


def load_plan(folder: Path) -> Plan | None:
    """The plan of a benchmark's folder; None where there is none yet.

    Raises:
        UserError: a newer version wrote it, or it is damaged.
    """
    path = folder / PLAN
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record.pop("format")
        if isinstance(version, int) and version > FORMAT:
            raise UserError(f"{path} has format {version}, this version reads up to {FORMAT}: upgrade embodied")
        record.pop("protocol_hash")
        recipes = {key: Recipe(**recipe) for key, recipe in record.pop("recipes").items()}
        return Plan(recipes=recipes, **record)
    except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no plan of a benchmark ({error}): choose another root=") from error


def differences(before: Any, now: Any, where: str = "") -> list[str]:
    """What differs between two JSON-able values, one line each: `recipes.hammer.steps: 2000, now 500`."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        found = []
        for key in sorted({*before, *now}):
            name = f"{where}.{key}" if where else str(key)
            if key not in now:
                found.append(f"{name}: gone")
            elif key not in before:
                found.append(f"{name}: new")
            else:
                found += differences(before[key], now[key], name)
        return found
    return [] if before == now else [f"{where}: {before!r}, now {now!r}"]


def require_same_protocol(before: Plan, now: Plan, folder: Path) -> None:
    """Refuse to add cells to results that were made under another protocol.

    Raises:
        UserError: the protocols differ; says where.
    """
    if before.protocol_hash == now.protocol_hash:
        return
    found = differences(json.loads(json.dumps(before.protocol)), json.loads(json.dumps(now.protocol)))
    more = f" (and {len(found) - 2} more)" if len(found) > 2 else ""
    raise UserError(
        f"{folder} holds results of another protocol, {before.protocol_hash} and not {now.protocol_hash}, and one "
        f"table must not mix them: {'; '.join(found[:2])}{more}. Choose another root=, or give the suite its old "
        "settings back"
    )
