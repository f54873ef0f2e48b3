"""A worker's part of a benchmark: demonstrations, and cells, each like a run of `embodied train`."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from embodied.bench.cells import Cell, CellResult, Episode
from embodied.bench.collection import collect_into
from embodied.bench.experiment import Experiment
from embodied.bench.phases import Phases, report_episodes, run_phases
from embodied.bench.plan import Plan, Recipe, load_plan
from embodied.bench.recipes import Place, experiment_of
from embodied.bench.reinforcement import Reinforcement
from embodied.bench.result_files import RUNS, file_name, save_result
from embodied.bench.results import save_outcomes
from embodied.bench.session import KeptSession
from embodied.bench.suite import MANDATORY, SHIFT
from embodied.bench.work_list import COLLECT, Item
from embodied.core.errors import UserError
from embodied.core.files import hash_json, write_text
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import RunFolder, read_metrics, versions
from embodied.datasets.storage.disk import FileLock
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.encoders.artifact import fingerprint

ERROR = "error.txt"
ENCODERS = "encoders"  # folder of the fingerprints of the encoders that cells have met
SECONDS = {"reinforce": "train"}  # phases that results call otherwise


@dataclass(frozen=True)
class MakeCellRunner:
    """Implements `MakeRunner`.

    Args:
        folder: of the benchmark.
        place: of all workers; `devices` in turns.
        filmed: seeds whose reported episodes are filmed.
    """

    folder: Path
    place: Place
    devices: Sequence[str]
    filmed: Sequence[int]

    def __call__(self, worker: int) -> CellRunner:
        place = replace(self.place, device=self.devices[worker % len(self.devices)])
        return CellRunner(self.folder, place, self.filmed)


class CellRunner:
    """Implements `Runner`: keeps encoders and simulators from one cell to the next.

    Args:
        folder: of the benchmark.
        place: where it runs.
        filmed: seeds whose reported episodes are filmed.
    """

    def __init__(self, folder: Path, place: Place, filmed: Sequence[int]) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        torch.set_num_threads(place.threads)
        plan = load_plan(folder)
        assert plan is not None, folder
        self._plan: Plan = plan
        self._folder, self._place, self._filmed = folder, place, filmed
        self._session = KeptSession()
        self._versions = versions()

    def __call__(self, item: Item) -> None:
        """Do an item.

        Raises:
            UserError: what the user can act on; anything else is a bug. Cells leave the traceback in their run folder.
        """
        if item.kind == COLLECT:
            self._collect(self._recipe_of_store(item.store))
            return
        cell = cell_of(item.key)
        path = self._run_path(cell)
        lock = FileLock(path.parent / f".{path.name}.lock")
        if not lock.acquire(wait=False):
            raise UserError(f"{lock.holder()} is at this cell: it had stopped answering")
        try:
            save_result(self._folder, self._run(cell, path, fresh=item.failures > 0))
        except Exception:
            write_text(path / ERROR, traceback.format_exc())
            raise
        finally:
            lock.release()

    def close(self) -> None:
        self._session.close()

    def _run(self, cell: Cell, path: Path, *, fresh: bool) -> CellResult:
        recipe = self._plan.recipe(cell)
        record = cell.seed in self._filmed
        experiment = experiment_of(recipe, cell, self._place, self._session, record=record)
        run = self._open(path, recipe, cell, fresh=fresh)
        encoder_fingerprint = self._require_same_encoder(cell, experiment)
        if cell.variant.startswith(SHIFT):
            self._try_shifted(experiment, run, cell)
        else:
            run_phases(experiment, run, SilentReporter(), collect=lambda: self._collect(recipe))
        (path / ERROR).unlink(missing_ok=True)
        return self._result(cell, experiment, run, encoder_fingerprint)

    def _require_same_encoder(self, cell: Cell, experiment: Experiment | Reinforcement) -> str:
        """The frozen encoder's fingerprint, which must be that of the cells before; empty of one that learns along."""
        if getattr(experiment.frozen_encoder, "trainable", False):
            return ""
        found = fingerprint(experiment.frozen_encoder)
        if cell.encoder in MANDATORY:
            return found  # random weights belong to the seed, a state's size to the task
        path = self._folder / ENCODERS / file_name(cell.encoder)
        if not path.is_file():
            write_text(path, found)
        if (before := path.read_text(encoding="utf-8")) != found:
            raise UserError(
                f"encoder={cell.encoder} has changed since other cells of this benchmark ran: its fingerprint was "
                f"{before[:12]} and is {found[:12]}. Give the new one a folder of its own, or choose another root="
            )
        return found

    def _open(self, path: Path, recipe: Recipe, cell: Cell, *, fresh: bool) -> RunFolder:
        """The run folder to go on with; a new one after a failure, or for other settings."""
        settings = {"cell": asdict(cell), "recipe": asdict(recipe)}
        decisive = hash_json(settings)
        if (path / "phases" / "run.json").is_file() and not fresh:
            run = RunFolder.open(path)
            if run.config_hash == decisive:
                return run
        shutil.rmtree(path, ignore_errors=True)
        text = yaml.safe_dump(settings, sort_keys=False)
        command = f"embodied bench suite={self._plan.name}, cell {cell.key}"
        return RunFolder.create(path, config_yaml=text, config_hash=decisive, command=command)

    def _try_shifted(self, experiment: Experiment | Reinforcement, run: RunFolder, cell: Cell) -> None:
        """The policy of the static cell, under the shift."""
        static = RunFolder.open(self._run_path(replace(cell, variant="static")))
        reporter = SilentReporter()
        tried = Phases(run, reporter)
        tried.do("evaluate", lambda: save_outcomes(run, report_episodes(experiment, static, reporter)))

    def _collect(self, recipe: Recipe) -> dict[str, Any]:
        path = self._place.stores / recipe.store
        behaviour = {name: value for name, value in recipe.collect.items() if name != "episodes"}
        store = collect_into(
            path,
            recipe.settings["env"],
            behaviour,
            episodes=int(recipe.collect["episodes"]),
            workers=self._place.processes,
            reporter=SilentReporter(),
            wait=True,
        )
        return {"store": str(path), "frames": store.num_frames, "fingerprint": store.fingerprint()}

    def _recipe_of_store(self, name: str) -> Recipe:
        return next(recipe for recipe in self._plan.recipes.values() if recipe.store == name)

    def _run_path(self, cell: Cell) -> Path:
        return self._folder / RUNS / file_name(cell.key)

    def _result(
        self,
        cell: Cell,
        experiment: Experiment | Reinforcement,
        run: RunFolder,
        encoder_fingerprint: str,
    ) -> CellResult:
        evaluated = run.result("evaluate")
        assert evaluated is not None, run.path
        static = RunFolder(self._run_path(replace(cell, variant="static"))) if cell.variant.startswith(SHIFT) else run
        curve = learning_curve(static)
        seconds: dict[str, float] = {}
        for name, value in run.phase_seconds().items():
            seconds[SECONDS.get(name, name)] = value
        device = self._place.device
        return CellResult(
            cell=cell,
            protocol=self._plan.protocol_hash,
            suite=self._plan.name,
            status="done",
            episodes=[
                Episode(seed=each["seed"], success=each["success"], score=each["score"], steps=each["steps"])
                for each in evaluated["outcomes"]
            ],
            best_score=max(score for _, score in curve) if curve and not cell.variant.startswith(SHIFT) else None,
            curve=curve if not cell.variant.startswith(SHIFT) else [],
            seconds=seconds,
            device=torch.cuda.get_device_name(torch.device(device)) if device.startswith("cuda") else device,
            encoder_fingerprint=encoder_fingerprint,
            demos_fingerprint=EpisodeStore.open(experiment.store).fingerprint() if experiment.store else "",
            run=str(run.path.relative_to(self._folder)),
            versions=self._versions,
        )


def learning_curve(run: RunFolder) -> list[list[float]]:
    """Mean score on the selection episodes by step of the checkpoints, [[step, score], ...]."""
    selected: Mapping[str, Any] = run.result("select") or {}
    rows = selected.get("checkpoints") or [row for row in read_metrics(run.path / "metrics.jsonl") if "score" in row]
    return [[float(row["step"]), float(row["score"])] for row in rows]


def cell_of(key: str) -> Cell:
    """The cell of a key, whose encoder may hold slashes of its own."""
    env, task, variant, controller, *encoder, demos, seed = key.split("/")
    return Cell(
        env=env,
        task=task,
        variant=variant,
        controller=controller,
        encoder="/".join(encoder),
        demos=int(demos),
        seed=int(seed),
    )
