"""The pre-trainings of `embodied replicate`: the stage before the benchmark.

Stores and jobs are items of the work list in the replication's folder. What is done has a record; the same command does
the rest, and a job that was ended goes on from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console

from embodied.bench.launchers.local import LocalCrew, devices_of_workers
from embodied.bench.replicate import Replication
from embodied.bench.replicate_jobs import RECORDS, Job, Pretraining, load_records
from embodied.bench.schedule import Schedule
from embodied.bench.work_list import Item, WorkList
from embodied.cli.bench_progress import BenchProgress
from embodied.cli.config import compose_config
from embodied.cli.replicate_looks import check_look
from embodied.cli.replicate_runner import (
    PRETRAIN,
    STORE,
    JobPlace,
    MakeJobRunner,
    overrides_of,
    store_record,
    stored_at,
)
from embodied.envs.worker_processes import usable_cores


def check_jobs(pretraining: Pretraining) -> None:
    """Every setting of every store, job and look has a name that there is, and a value of its kind.

    Raises:
        UsageError: one has not; before anything is collected.
    """
    stores = {tuple(overrides_of(settings)) for settings in pretraining.stores.values()}
    jobs = {tuple(overrides_of(job.settings)) for job in pretraining.jobs}
    for verb, commands in (("collect", stores), ("pretrain", jobs)):
        for overrides in sorted(commands):
            compose_config(verb, overrides)
    check_looks(pretraining)


def check_looks(pretraining: Pretraining) -> None:
    """Every look at a job is one that there is.

    Raises:
        UsageError: one is not.
    """
    for job in pretraining.jobs:
        for kind, settings in job.looks.items():
            check_look(kind, settings)


def run_jobs(replication: Replication, config: DictConfig, console: Console) -> dict[str, str]:
    """Collect and pre-train what is not done yet.

    Args:
        replication: the preset.
        config: of `embodied replicate`.
        console: where it is told.

    Returns:
        Why items have failed, by key; empty if all is done.

    Raises:
        UsageError, UserError: settings make no sense, or the folder holds pre-trainings of others.
        KeyboardInterrupt: after all workers have ended; the same command goes on.
    """
    pretraining, folder = replication.pretraining, replication.folder
    check_jobs(pretraining)
    done = load_records(folder, pretraining)
    left = [job for job in pretraining.jobs if job.key not in done]
    if not left:
        console.print(f"all of {len(done)} pre-trainings are done", highlight=False)
        return {}
    if config.launcher != "local":
        console.print(f"pre-trainings run here; launcher={config.launcher} is for the benchmark", highlight=False)
    (folder / RECORDS).mkdir(parents=True, exist_ok=True)
    wanted = dict.fromkeys(name for job in left for name in job.stores)
    stores = [Item(key=f"{STORE}/{name}", store=name) for name in wanted]
    have = [item.key for item in stores if stored_at(store_record(folder, item.store), pretraining.stores[item.store])]
    with BenchProgress(console) as progress, WorkList(folder) as work:
        failed = _work(work, stores, have, lambda key: False, progress, replication, config)
    barred = without_stores(pretraining, done, [key.partition("/")[2] for key in failed])
    items = [_item(job, pretraining) for job in pretraining.jobs if job.key not in barred]
    failed |= {f"{PRETRAIN}/{key}": f"{STORE}/{name} has failed" for key, name in barred.items()}
    with BenchProgress(console) as progress, WorkList(folder) as work:
        return failed | _work(
            work,
            items,
            [f"{PRETRAIN}/{key}" for key in done],
            lambda key: (folder / RECORDS / f"{key.partition('/')[2]}.json").is_file(),
            progress,
            replication,
            config,
        )


def without_stores(pretraining: Pretraining, done: Collection[str], failed: Collection[str]) -> dict[str, str]:
    """Jobs that are not done and cannot be, for want of a store of theirs or of one that comes before: job -> store."""
    barred = {}
    for job in pretraining.jobs:
        chain = [each for each in pretraining.chain(job) if each.key not in done]
        if job.key not in done and (lacking := [name for each in chain for name in each.stores if name in failed]):
            barred[job.key] = lacking[0]
    return barred


def _item(job: Job, pretraining: Pretraining) -> Item:
    before = pretraining.before(job)
    needs = None if before is None else f"{PRETRAIN}/{before.key}"
    return Item(key=f"{PRETRAIN}/{job.key}", needs=needs, encoder=job.key)


def _work(
    work: WorkList,
    items: Sequence[Item],
    done: Sequence[str],
    survived: Callable[[str], bool],
    progress: BenchProgress,
    replication: Replication,
    config: DictConfig,
) -> dict[str, str]:
    """Do the items that are not done; returns why some have failed."""
    work.add(items)
    work.take_up_lost()
    work.agree_with(done, {})
    waiting = len(items) - len(set(done) & {item.key for item in items})
    if not waiting:
        return {}
    failed: dict[str, str] = {}

    def note(keys: Sequence[str], reason: str) -> None:
        failed.update(dict.fromkeys(keys, reason))

    crew = hire_workers(replication, config, waiting)
    Schedule(work, items, crew, survived=survived, failed=note, watcher=progress).run()
    return failed


def hire_workers(replication: Replication, config: DictConfig, waiting: int) -> LocalCrew:
    """Processes of this machine, as many as the benchmark would have, sharing its cores."""
    devices = devices_of_workers(config.workers, str(config.device), gpu_gb=float(config.gpu_gb))[:waiting]
    share = max(1, usable_cores() // len(devices))
    cache = None if config.cache is None else str(Path(str(config.cache)).expanduser().absolute())
    place = JobPlace(
        devices=devices,
        processes=share if share > 1 else 0,
        threads=share,
        cache=cache,
        cache_gb=None if config.cache_gb is None else float(config.cache_gb),
    )
    runner = MakeJobRunner(replication.folder.absolute(), replication.pretraining, place)
    return LocalCrew(runner, size=len(devices))
