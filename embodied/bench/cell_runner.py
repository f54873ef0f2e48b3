"""A worker's part of a benchmark: demonstrations, and cells, each like a run of `embodied train`."""

from __future__ import annotations

import logging
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from embodied.bench.cell_results import OpenCell, result_of
from embodied.bench.cells import Cell, cell_of
from embodied.bench.collection import collect_into
from embodied.bench.cpu_time import CpuWatch
from embodied.bench.launchers.crew import Done
from embodied.bench.phases import AnyExperiment, Phases, report_episodes, run_evaluation, run_training
from embodied.bench.plan import Plan, Recipe, load_plan
from embodied.bench.recipes import Place, experiment_of
from embodied.bench.result_files import RUNS, file_name, save_result
from embodied.bench.results import save_outcomes
from embodied.bench.session import KeptSession
from embodied.bench.statistics.sequential import read_sequential_test
from embodied.bench.store_costs import cost_of, save_store_cost
from embodied.bench.suite import MANDATORY, tries_static
from embodied.bench.team_evaluation import Trained, evaluate_together
from embodied.bench.work_list import COLLECT, Item
from embodied.core.allocator import keep_freed_memory
from embodied.core.errors import UserError
from embodied.core.files import hash_json, write_text
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import RunFolder, Stopwatch, versions
from embodied.datasets.storage.disk import FileLock
from embodied.encoders.artifact import fingerprint

ERROR = "error.txt"
ENCODERS = "encoders"  # folder of the fingerprints of the encoders that cells have met


@dataclass(frozen=True)
class MakeCellRunner:
    """Implements `MakeRunner`.

    Args:
        folder: of the benchmark.
        place: of all workers; `devices` in turns.
        filmed: seeds whose reported episodes are filmed.
        batch_cells: cells that are evaluated at once, at most, where they share an encoder.
    """

    folder: Path
    place: Place
    devices: Sequence[str]
    filmed: Sequence[int]
    batch_cells: int = 1

    def __call__(self, worker: int) -> CellRunner:
        place = replace(self.place, device=self.devices[worker % len(self.devices)])
        return CellRunner(self.folder, place, self.filmed, batch_cells=self.batch_cells)


class CellRunner:
    """Implements `Runner` and `TeamRunner`: keeps encoders and simulators from one cell to the next.

    Args:
        folder: of the benchmark.
        place: where it runs.
        filmed: seeds whose reported episodes are filmed.
        batch_cells: see `MakeCellRunner`.
    """

    def __init__(self, folder: Path, place: Place, filmed: Sequence[int], *, batch_cells: int = 1) -> None:
        logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
        torch.set_num_threads(place.threads)
        keep_freed_memory()
        plan = load_plan(folder)
        assert plan is not None, folder
        self._plan: Plan = plan
        self._folder, self._place, self._filmed, self._batch_cells = folder, place, filmed, batch_cells
        self._session = KeptSession()
        self._versions = versions()

    def __call__(self, item: Item) -> None:
        """Do an item.

        Raises:
            UserError: what the user can act on; anything else is a bug. Cells leave the traceback in their run folder.
        """
        (done,) = self._do([item])
        if done.error is not None:
            raise done.error

    def together(self, items: Sequence[Item]) -> Iterator[Done]:
        """Implements `TeamRunner`: as many cells at once as `batch_cells` says."""
        for start in range(0, len(items), self._batch_cells):
            yield from self._do(items[start : start + self._batch_cells])

    def _do(self, items: Sequence[Item]) -> Iterator[Done]:
        """Train what there is to train, evaluate together what shares an encoder, and the rest one by one."""
        with ExitStack() as locks:
            opened: list[tuple[Item, OpenCell, float]] = []
            for item in items:
                watch = Stopwatch()
                try:
                    found = self._begin(item, locks)
                except Exception as error:  # one that breaks must not take the others with it
                    yield Done(key=item.key, seconds=watch.seconds, error=error)
                    continue
                if found is None:
                    yield Done(key=item.key, seconds=watch.seconds)
                else:
                    opened.append((item, found, watch.seconds))
            shared = self._evaluate_together([cell for _, cell, _ in opened])
            for item, cell, seconds in opened:
                watch, broken = Stopwatch(), None
                try:
                    self._end(cell)
                except Exception as error:
                    broken = error
                spent = seconds + shared.get(item.key, 0.0) + watch.seconds
                yield Done(key=item.key, seconds=spent, error=broken)

    def _begin(self, item: Item, locks: ExitStack) -> OpenCell | None:
        """Everything before the reported episodes; None of an item that is no cell, which is then done."""
        if item.kind == COLLECT:
            self._collect_for_all(item.store)
            return None
        cell = cell_of(item.key)
        path = self._run_path(cell)
        lock = FileLock(path.parent / f".{path.name}.lock")
        if not lock.acquire(wait=False):
            raise UserError(f"{lock.holder()} is at this cell: it had stopped answering")
        locks.callback(lock.release)
        with self._leaving_error(path):
            recipe = self._plan.recipe(cell)
            record = cell.seed in self._filmed
            stopping = read_sequential_test(self._plan.early_stopping or None)
            experiment = experiment_of(recipe, cell, self._place, self._session, record=record, stopping=stopping)
            run = self._open(path, recipe, cell, fresh=item.failures > 0)
            weights = self._require_same_encoder(cell, experiment)
            if not tries_static(cell.variant):
                run_training(experiment, run, SilentReporter(), collect=lambda: self._collect(recipe))
        return OpenCell(cell=cell, experiment=experiment, run=run, encoder_fingerprint=weights)

    def _evaluate_together(self, cells: Sequence[OpenCell]) -> dict[str, float]:
        """Seconds of the cells whose reported episodes were done side by side, by key; the others are left to `_end`.

        What breaks here is not the end of a cell: alone, each shows whether it was the one.
        """
        due = [cell for cell in cells if cell.run.result("evaluate") is None]
        if len(due) < 2:
            return {}
        try:
            trained = [Trained(experiment=cell.experiment, run=cell.run, trained=self._trained(cell)) for cell in due]
            evaluate_together(trained, SilentReporter())
        except Exception as error:
            keys = ", ".join(cell.cell.key for cell in due)
            logging.getLogger(__name__).warning("evaluated one by one, for together failed %s (%s)", keys, error)
        ended = [cell for cell in due if cell.run.result("evaluate") is not None]
        return {cell.cell.key: cell.run.phase_seconds()["evaluate"] for cell in ended}

    def _trained(self, cell: OpenCell) -> RunFolder:
        """The run with the policy: of a shifted cell the static one's."""
        if not tries_static(cell.cell.variant):
            return cell.run
        return RunFolder.open(self._run_path(replace(cell.cell, variant="static")))

    def _end(self, cell: OpenCell) -> None:
        """The reported episodes, if they are not done, and the result."""
        with self._leaving_error(cell.run.path):
            if tries_static(cell.cell.variant):
                self._try_shifted(cell)
            else:
                run_evaluation(cell.experiment, cell.run, SilentReporter())
            (cell.run.path / ERROR).unlink(missing_ok=True)
            result = result_of(cell, self._plan, self._folder, device=self._place.device, versions=self._versions)
            save_result(self._folder, result)

    @contextmanager
    def _leaving_error(self, path: Path) -> Iterator[None]:
        """Leave the traceback in the run folder of a cell that breaks."""
        try:
            yield
        except Exception:
            write_text(path / ERROR, traceback.format_exc())
            raise

    def close(self) -> None:
        self._session.close()

    def _require_same_encoder(self, cell: Cell, experiment: AnyExperiment) -> str:
        """The frozen encoder's fingerprint, which must be that of the cells before; empty of one that learns along."""
        if getattr(experiment.frozen_encoder, "trainable", False):
            return ""
        found = fingerprint(experiment.frozen_encoder)
        if cell.encoder in MANDATORY:
            return found  # random weights belong to the seed, a state's size to the task
        path = self._folder / ENCODERS / file_name(cell.weights)
        if not path.is_file():
            write_text(path, found)
        if (before := path.read_text(encoding="utf-8")) != found:
            raise UserError(
                f"encoder={cell.weights} has changed since other cells of this benchmark ran: its fingerprint was "
                f"{before[:12]} and is {found[:12]}. Give the new one a folder of its own, or choose another root="
            )
        return found

    def _open(self, path: Path, recipe: Recipe, cell: Cell, *, fresh: bool) -> RunFolder:
        """The run folder to go on with; a new one after a failure, or for other settings."""
        settings: dict[str, Any] = {"cell": asdict(cell), "recipe": asdict(recipe)}
        if self._plan.early_stopping:
            settings["early_stopping"] = dict(self._plan.early_stopping)
        decisive = hash_json(settings)
        if (path / "phases" / "run.json").is_file() and not fresh:
            run = RunFolder.open(path)
            if run.config_hash == decisive:
                return run
        shutil.rmtree(path, ignore_errors=True)
        text = yaml.safe_dump(settings, sort_keys=False)
        command = f"embodied bench suite={self._plan.name}, cell {cell.key}"
        return RunFolder.create(path, config_yaml=text, config_hash=decisive, command=command)

    def _try_shifted(self, cell: OpenCell) -> None:
        """The policy of the static cell, under the shift."""
        reporter = SilentReporter()

        def episodes() -> dict[str, Any]:
            return save_outcomes(cell.run, report_episodes(cell.experiment, self._trained(cell), reporter))

        Phases(cell.run, reporter).do("evaluate", episodes)

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

    def _collect_for_all(self, name: str) -> None:
        """The demonstrations of a store, and what they cost this benchmark."""
        recipe = next(recipe for recipe in self._plan.recipes.values() if recipe.store == name)
        there = (self._place.stores / name).exists()
        watch, cpu = Stopwatch(), CpuWatch()
        collected = self._collect(recipe)
        cost = cost_of(
            recipe,
            frames=collected["frames"],
            fingerprint=collected["fingerprint"],
            seconds=round(watch.seconds, 3),
            cpu_seconds=round(cpu.seconds, 3),
            begun_before=there,
        )
        save_store_cost(self._folder, cost)

    def _run_path(self, cell: Cell) -> Path:
        return self._folder / RUNS / file_name(cell.key)
