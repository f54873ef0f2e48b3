"""What a replication pre-trains before its benchmark: stores to collect, jobs to run, encoders that come of them.

pretraining:
  stores:                          # settings of embodied collect
    demos: {env: metaworld, task: hammer-v3, episodes: 60, collect.seed: 10000}
  data: [demos]                    # of every job that names no other
  settings: {objective: rpt, train.steps: 4000}        # of embodied pretrain, for every job
  jobs:
    token: {}                      # <run>/encoder becomes the encoder `token` of suites and claims
    modality: {settings: {objective.masking: modality}}
    many:                          # a mixture: entries of a manifest, by the names of stores
      data: [{store: demos, embodiment: sawyer}]
      exports: {many: encoders/sawyer}
    more: {settings: {sequence.trunk: "job:many/trunk.safetensors"}, seeds: 3, exports: {}}
    tuned: {seeds: 3, each_seed: true}                 # cells of a seed see the encoder of that seed
    looked: {looks: {depths: {store: demos}}}          # measured afterwards, see `cli.replicate_looks`
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embodied.bench.cells import SEED
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import hash_json, write_json

RUNS, EXPORTS, RECORDS = "pretraining", "pretrained", "pretraining/records"  # folders beside the benchmark's own
REFERENCE = "job:"  # begins a setting that is a file or folder of another job's run


@dataclass(frozen=True, kw_only=True)
class Job:
    """A pre-training.

    Args:
        name: in the preset.
        seed: of the training.
        seeds: how many of its kind there are.
        data: names of stores; or entries of a manifest, each with a `store`.
        settings: of `embodied pretrain`.
        exports: name of an encoder -> its folder in the run; of the first seed.
        each_seed: export that of every seed, under one name.
        looks: what is measured when it is done -> its settings.
    """

    name: str
    seed: int = 0
    seeds: int = 1
    data: Sequence[str | Mapping[str, Any]]
    settings: Mapping[str, Any] = field(default_factory=dict)
    exports: Mapping[str, str] = field(default_factory=dict)
    each_seed: bool = False
    looks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """Its name among all."""
        return self.name if self.seeds == 1 else f"{self.name}-{self.seed}"

    @property
    def trained_on(self) -> list[str]:
        """Names of the stores of its data."""
        return list(dict.fromkeys(each if isinstance(each, str) else str(each["store"]) for each in self.data))

    @property
    def stores(self) -> list[str]:
        """Names of the stores that have to be there: also those that it is looked at with."""
        shown = [str(look["store"]) for look in self.looks.values() if "store" in look]
        return list(dict.fromkeys([*self.trained_on, *shown]))

    @property
    def references(self) -> list[str]:
        """Names of the jobs whose runs its settings name."""
        found = [str(value) for value in self.settings.values() if str(value).startswith(REFERENCE)]
        return list(dict.fromkeys(value.removeprefix(REFERENCE).partition("/")[0] for value in found))

    @property
    def after(self) -> str | None:
        """The job that it goes on from; there is one at most, see `read_pretraining`."""
        return next(iter(self.references), None)


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """The stores and jobs of a preset.

    Args:
        stores: name -> settings of `embodied collect`.
        jobs: one for each name and seed.
    """

    stores: Mapping[str, Mapping[str, Any]]
    jobs: Sequence[Job]

    def job(self, key: str) -> Job:
        """The job of a key."""
        return next(job for job in self.jobs if job.key == key)

    def exports(self) -> list[str]:
        """Names of the encoders that come of it."""
        return list(dict.fromkeys(name for job in self.jobs for name in job.exports))

    def seeds(self) -> int | None:
        """How many seeds all encoders have that differ by seed; None where none do."""
        return min((job.seeds for job in self.jobs if job.each_seed), default=None)

    def encoder(self, folder: Path, name: str) -> str:
        """An encoder that comes of it, as cells name it."""
        each = any(job.each_seed for job in self.jobs if name in job.exports)
        return str(export_path(folder, name)) + (f"/{SEED}" if each else "")

    def resolved(self, folder: Path, settings: Mapping[str, Any], *, seed: int = 0) -> dict[str, Any]:
        """Settings with run folders in place of the jobs that they name."""
        return {name: self._resolved(folder, value, seed) for name, value in settings.items()}

    def _resolved(self, folder: Path, value: Any, seed: int) -> Any:
        if not (isinstance(value, str) and value.startswith(REFERENCE)):
            return value
        name, slash, inner = value.removeprefix(REFERENCE).partition("/")
        named = [job for job in self.jobs if job.name == name]
        if not named:
            raise unknown_name("job", name, dict.fromkeys(job.name for job in self.jobs) or ["none"])
        chosen = next((job for job in named if job.seed == seed), named[0])
        return f"{run_path(folder, chosen)}{slash}{inner}"

    def before(self, job: Job) -> Job | None:
        """The job that another goes on from: the one of its seed, or the only one."""
        if job.after is None:
            return None
        named = [each for each in self.jobs if each.name == job.after]
        return next((each for each in named if each.seed == job.seed), named[0])

    def chain(self, job: Job) -> list[Job]:
        """A job, the one that it goes on from, and so on."""
        before = self.before(job)
        return [job, *([] if before is None else self.chain(before))]

    def shared(self, name: str) -> list[str]:
        """Keys of the jobs that the cells of all seeds of an encoder stand on; empty for an encoder not of it."""
        chains = [[each.key for each in self.chain(job)] for job in self.jobs if name in job.exports]
        return [key for key in chains[0] if all(key in chain for chain in chains)] if chains else []

    def identity(self, job: Job) -> str:
        """Hash of all that decides what comes of a job."""
        before = self.before(job)
        return hash_json(
            {
                "data": [each if isinstance(each, str) else dict(each) for each in job.data],
                "stores": {name: dict(self.stores[name]) for name in job.stores},
                "settings": dict(job.settings),
                "seed": job.seed,
                "before": None if before is None else self.identity(before),
                **({"looks": {name: dict(look) for name, look in job.looks.items()}} if job.looks else {}),
            }
        )


def read_pretraining(content: Any, *, where: str) -> Pretraining:
    """From what a preset's YAML holds, see the module.

    Raises:
        UsageError: an entry is unknown, or names what is not there.
    """
    fields = _group(content, where, known=("stores", "data", "settings", "jobs"))
    stores = {
        str(name): _group(settings, f"{where}.stores.{name}")
        for name, settings in _group(fields.get("stores", {}), f"{where}.stores").items()
    }
    shared = _group(fields.get("settings", {}), f"{where}.settings")
    jobs: list[Job] = []
    for name, entry in _group(fields.get("jobs", {}), f"{where}.jobs").items():
        jobs += _jobs(name, entry, shared, fields.get("data", []), f"{where}.jobs.{name}")
    made = Pretraining(stores=stores, jobs=jobs)
    _check(made, where)
    return made


def _jobs(name: str, entry: Any, shared: Mapping[str, Any], data: Any, where: str) -> Iterator[Job]:
    fields = _group(entry or {}, where, known=("data", "settings", "exports", "seeds", "each_seed", "looks"))
    seeds = fields.get("seeds", 1)
    if isinstance(seeds, bool) or not isinstance(seeds, int) or seeds < 1:
        raise UsageError(f"{where}.seeds must be a whole number of at least 1, got {seeds!r}")
    read = fields.get("data", data)
    if not isinstance(read, list) or not read:
        raise UsageError(f"{where}.data must be a list of stores, got {read!r}")
    for each in read:
        if not isinstance(each, str) and not (isinstance(each, Mapping) and "store" in each):
            raise UsageError(f"{where}.data: expected names of stores, or groups with a store, got {each!r}")
    settings = {**shared, **_group(fields.get("settings") or {}, f"{where}.settings")}
    if "objective" not in settings:
        raise UsageError(f"{where}.settings: objective is missing")
    exports = _group(fields.get("exports", {name: "encoder"}), f"{where}.exports")
    each_seed = fields.get("each_seed", False)
    if not isinstance(each_seed, bool):
        raise UsageError(f"{where}.each_seed must be true or false, got {each_seed!r}")
    looks = _group(fields.get("looks") or {}, f"{where}.looks")
    for seed in range(seeds):
        yield Job(
            name=name,
            seed=seed,
            seeds=seeds,
            data=read,
            settings=settings,
            exports={key: str(value) for key, value in exports.items()} if seed == 0 or each_seed else {},
            each_seed=each_seed,
            looks={kind: _group(look or {}, f"{where}.looks.{kind}") for kind, look in looks.items()},
        )


def _check(made: Pretraining, where: str) -> None:
    names = [job.name for job in made.jobs]
    for job in made.jobs:
        for store in job.stores:
            if store not in made.stores:
                raise unknown_name(f"store of {where}, job {job.name}", store, made.stores)
        for name in job.references:
            if name not in names or name == job.name:
                raise unknown_name(f"job of {where}, named by {job.name}", name, names)
        if len(job.references) > 1:
            raise UsageError(f"{where}: {job.name} names the runs of {' and '.join(job.references)}: one is the most")
    exported = [name for job in made.jobs for name in job.exports if job.seed == 0]
    if twice := sorted({name for name in exported if exported.count(name) > 1}):
        raise UsageError(f"{where}: two jobs export {twice[0]}")


def _group(content: Any, where: str, *, known: Sequence[str] | None = None) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise UsageError(f"{where} must be a group of settings, got {content!r}")
    for key in content:
        if known is not None and str(key) not in known:
            raise unknown_name(f"entry of {where}", str(key), known)
    return {str(key): value for key, value in content.items()}


def export_path(folder: Path, name: str) -> Path:
    """Where the encoder of a name lies, once it is there."""
    return (folder / EXPORTS / name).expanduser().resolve()


def export_places(folder: Path, job: Job) -> dict[Path, str]:
    """Where a job's encoders go -> their folders in its run."""
    places = {export_path(folder, name): inner for name, inner in job.exports.items()}
    return {path / str(job.seed): inner for path, inner in places.items()} if job.each_seed else places


def run_path(folder: Path, job: Job) -> Path:
    """The run folder of a job."""
    return (folder / RUNS / job.key).expanduser().resolve()


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """What came of a job: what it was, the last value of every metric, and seconds."""

    key: str
    identity: str
    metrics: Mapping[str, float]
    seconds: float


def save_record(folder: Path, record: JobRecord) -> None:
    """Write the record of a job that is done."""
    write_json(folder / RECORDS / f"{record.key}.json", {**vars(record), "metrics": dict(record.metrics)})


def load_records(folder: Path, pretraining: Pretraining) -> dict[str, JobRecord]:
    """The records of the jobs that are done, by key.

    Raises:
        UserError: a job was made with other settings, or a record is damaged.
    """
    found = {}
    for job in pretraining.jobs:
        path = folder / RECORDS / f"{job.key}.json"
        if not path.is_file():
            continue
        try:
            record = JobRecord(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is no record of a pre-training ({error}): delete it") from error
        if record.identity != pretraining.identity(job):
            raise UserError(
                f"{run_path(folder, job)} was pre-trained with other settings than the preset has now: choose another "
                "root="
            )
        found[job.key] = record
    return found
