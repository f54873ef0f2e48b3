"""What a worker of `embodied replicate` does: collect a store, pre-train and publish what came of it."""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from embodied.bench.replicate_jobs import (
    RECORDS,
    RUNS,
    Job,
    JobRecord,
    Pretraining,
    export_places,
    run_path,
    save_record,
)
from embodied.bench.work_list import Item
from embodied.cli.bench_plan import override_text
from embodied.cli.config import compose_config
from embodied.cli.replicate_looks import look_at
from embodied.core.allocator import keep_freed_memory
from embodied.core.files import atomic_path, hash_json, write_json, write_text
from embodied.core.reporting import SilentReporter
from embodied.core.run_folder import Stopwatch, read_metrics

STORE, PRETRAIN = "store", "pretrain"  # first parts of the items' keys
GROUPS = ("env", "objective")  # settings that choose an option of a configuration group


@dataclass(frozen=True, kw_only=True)
class JobPlace:
    """Where jobs run: `devices` of the workers in turns, simulator `processes` and `threads` of each."""

    devices: Sequence[str]
    processes: int
    threads: int
    cache: str | None
    cache_gb: float | None


@dataclass(frozen=True)
class MakeJobRunner:
    """Implements `MakeRunner`."""

    folder: Path
    pretraining: Pretraining
    place: JobPlace

    def __call__(self, worker: int) -> JobRunner:
        import torch

        torch.set_num_threads(self.place.threads)
        keep_freed_memory()
        device = self.place.devices[worker % len(self.place.devices)]
        if device.startswith("cuda"):  # without its number in the settings: another worker may go on with a job
            torch.cuda.set_device(device)
            device = "cuda"
        return JobRunner(self.folder, self.pretraining, self.place, device=device)


class JobRunner:
    """Implements `Runner`: collects stores and pre-trains.

    Args:
        folder: of the replication.
        pretraining: the stores and jobs.
        place: where.
        device: of this worker.
    """

    def __init__(self, folder: Path, pretraining: Pretraining, place: JobPlace, *, device: str) -> None:
        self._folder, self._pretraining, self._place, self._device = folder, pretraining, place, device

    def __call__(self, item: Item) -> None:
        kind, _, name = item.key.partition("/")
        if kind == STORE:
            self._store(name)
        else:
            self._pretrain(self._pretraining.job(name))

    def close(self) -> None:
        """Nothing is held."""

    def _store(self, name: str) -> Path:
        """The store of a name, collected if need be."""
        settings = self._pretraining.stores[name]
        record = store_record(self._folder, name)
        found = stored_at(record, settings)
        if found is None:
            found = self._collect(settings)
            write_json(record, {"settings": hash_json(dict(settings)), "path": str(found)})
        return found

    def _collect(self, settings: Mapping[str, Any]) -> Path:
        from embodied.bench.collection import collect_into
        from embodied.cli.settings import collect_options, env_options, store_path

        config = compose_config("collect", [*overrides_of(settings), *self._cache()[:1]])
        path = store_path(config, int(config.episodes))
        collect_into(
            path,
            env_options(config),
            collect_options(config),
            episodes=int(config.episodes),
            workers=self._place.processes,
            reporter=SilentReporter(),
            wait=True,
        )
        return path

    def _pretrain(self, job: Job) -> None:
        """Run a job or go on with it, then publish its encoders and its record."""
        from embodied.cli.pretrain import pretrain_once

        run = run_path(self._folder, job)
        if not (run / "phases" / "run.json").is_file():  # ended before it had begun
            shutil.rmtree(run, ignore_errors=True)
        named = self._pretraining.resolved(self._folder, job.settings, seed=job.seed)
        settings = {**named, "data": self._data(job), "seed": job.seed, "run": str(run)}
        arguments = [*overrides_of(settings), f"device={self._device}", "resume=true", *self._cache()]
        config = compose_config("pretrain", arguments)
        log = self._folder / RUNS / f"{job.key}.log"
        attempts = Attempts(self._folder / RUNS / f"{job.key}.attempts.json")
        with attempts.another(run), open(log, "a", encoding="utf-8") as told, redirect_stdout(told):
            pretrain_once(config, arguments)
            measured = self._looks(job, run)
        for path, inner in export_places(self._folder, job).items():
            with atomic_path(path) as temporary:
                shutil.copytree(run / inner, temporary)
        record = JobRecord(
            key=job.key,
            identity=self._pretraining.identity(job),
            metrics={**last_metrics(run / "metrics.jsonl"), **measured},
            seconds=round(attempts.seconds, 1),
        )
        save_record(self._folder, record)

    def _looks(self, job: Job, run: Path) -> dict[str, float]:
        """What is measured of a job that is done, by look and name."""
        found: dict[str, float] = {}
        for kind, look in job.looks.items():
            given = {**look, **({"store": str(self._store(str(look["store"])))} if "store" in look else {})}
            measured = look_at(kind, run, given, device=self._device, cache=self._cache())
            found |= {f"{kind}.{name}": value for name, value in measured.items()}
        return found

    def _data(self, job: Job) -> Any:
        """The stores' folders, or the file of a manifest of them."""
        paths = {name: str(self._store(name).absolute()) for name in job.trained_on}
        if all(isinstance(each, str) for each in job.data):
            return list(paths.values())
        entries = []
        for each in job.data:
            entry = {"store": each} if isinstance(each, str) else dict(each)
            name = str(entry.pop("store"))
            entries.append({"name": name, **entry, "path": paths[name]})
        manifest = self._folder / RUNS / f"{job.key}.yaml"
        write_text(manifest, yaml.safe_dump({"datasets": entries}, sort_keys=False))
        return str(manifest.absolute())

    def _cache(self) -> list[str]:
        """Settings of the caches, that of the folder first."""
        return [f"cache={override_text(self._place.cache)}", f"cache_gb={override_text(self._place.cache_gb)}"]


class Attempts:
    """Seconds of all attempts at a job, on disk; one that was killed counts until its run was last written to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._all: list[dict[str, float]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []

    @contextmanager
    def another(self, run: Path) -> Iterator[None]:
        """Around an attempt at what goes into a run folder."""
        if self._all and "seconds" not in self._all[-1]:
            began = self._all[-1]["began"]
            written = max((path.stat().st_mtime for path in run.rglob("*") if path.is_file()), default=began)
            self._all[-1]["seconds"] = max(0.0, written - began)
        self._all.append({"began": time.time()})
        write_json(self._path, self._all)
        watch = Stopwatch()
        try:
            yield
        finally:
            self._all[-1]["seconds"] = watch.seconds
            write_json(self._path, self._all)

    @property
    def seconds(self) -> float:
        """Of all that have ended."""
        return sum(each.get("seconds", 0.0) for each in self._all)


def overrides_of(settings: Mapping[str, Any]) -> list[str]:
    """Settings of a preset as those of a command."""
    return [f"{name}={value if name in GROUPS else override_text(value)}" for name, value in settings.items()]


def store_record(folder: Path, name: str) -> Path:
    """The file that says where a store lies."""
    return folder / RECORDS / "stores" / f"{name}.json"


def stored_at(record: Path, settings: Mapping[str, Any]) -> Path | None:
    """The store that a record is of, None where it is gone or another one is asked for."""
    if not record.is_file():
        return None
    found = json.loads(record.read_text(encoding="utf-8"))
    path = Path(found["path"])
    return path if found["settings"] == hash_json(dict(settings)) and path.is_dir() else None


def last_metrics(path: Path) -> dict[str, float]:
    """The last value of every metric of a run."""
    found: dict[str, float] = {}
    for record in read_metrics(path):
        found |= {name: float(value) for name, value in record.items() if isinstance(value, int | float)}
    return {name: value for name, value in found.items() if math.isfinite(value)}
