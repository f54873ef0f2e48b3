"""Run a suite for any encoders under one protocol, with the mandatory baselines, and write tables and a report.

Cells that have a result are never run again: the same command goes on after an interruption, and with more encoders or
seeds it runs what is new. A suite whose settings have changed wants another root=: one table never mixes protocols.

embodied bench compare A B and embodied bench leaderboard FOLDER read such folders.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from embodied.bench.bench_runs import Hire, open_bench, run_bench
from embodied.bench.cells import Cell
from embodied.bench.launchers.crew import Crew, MakeRunner
from embodied.bench.plan import Plan, load_plan
from embodied.bench.result_files import load_results
from embodied.bench.schedule import Tally
from embodied.bench.statistics.sequential import read_sequential_test
from embodied.bench.suite import Suite, check_encoder_name, load_suite
from embodied.bench.work_list import FAILED
from embodied.cli.bench_plan import make_plan, source_of
from embodied.cli.bench_progress import BenchProgress
from embodied.cli.config import compose_config, positive
from embodied.core.errors import UsageError, unknown_name

LAUNCHERS = ("local", "ray", "slurm")
SUB_VERBS = {"compare": "bench_compare", "leaderboard": "bench_leaderboard"}
SUITE = "suite="
INTERRUPTED = 130


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied bench`, `embodied bench compare` and `embodied bench leaderboard`."""
    if arguments and arguments[0] in SUB_VERBS:
        module = import_module(f"embodied.cli.{SUB_VERBS[arguments[0]]}")
        return int(module.main(list(arguments[1:]), debug=debug))
    if "--help" in arguments or "-h" in arguments:
        from embodied.cli.main import print_verb_help

        print_verb_help("bench")
        return 0
    if arguments and "=" not in arguments[0] and not arguments[0].startswith("-"):
        raise unknown_name("sub-command of embodied bench", arguments[0], SUB_VERBS)
    # Hydra would take the name of a suite for a choice of the configuration group of that name.
    config = compose_config("bench", [text for text in arguments if not text.startswith(SUITE)])
    spec = next((text.removeprefix(SUITE) for text in arguments if text.startswith(SUITE)), str(config.suite))
    try:
        return bench(load_suite(spec), config, Console())
    except KeyboardInterrupt:  # run_suite has said how to go on
        return INTERRUPTED


def bench(suite: Suite, config: DictConfig, console: Console) -> int:
    """Run a suite with the settings of `bench.yaml` and write its report; 1 where cells have failed.

    Raises:
        UsageError, UserError: a setting or the suite makes no sense, or the folder holds another protocol.
    """
    folder = run_suite(suite, config, console)
    from embodied.bench.bench_report import write_bench_report

    results = load_results(folder)
    plan = load_plan(folder)
    assert plan is not None, folder
    report = write_bench_report(folder, results, suite.name, protocols={plan.protocol_hash: plan.protocol})
    console.print(report.shown())
    for note in report.notes:
        console.print(note, highlight=False)
    failed = [result for result in results if result.status == FAILED]
    if failed:
        console.print(
            f"[red]{len(failed)} of {len(results)} cells have failed[/], the first: {failed[0].cell.key}: "
            f"{failed[0].reason}. With retry=true the same command tries them again",
            highlight=False,
        )
    console.print(f"report [bold]{report.page}[/]", highlight=False, soft_wrap=True)
    return int(bool(failed))


def run_suite(suite: Suite, config: DictConfig, console: Console) -> Path:
    """Run what has no result yet; returns the folder with the results.

    Raises:
        UsageError, UserError: see `bench`.
        KeyboardInterrupt: after all workers have ended; the same command goes on.
    """
    seeds = chosen_seeds(config.seeds, suite.seeds)
    check_settings(config)
    suite = with_early_stopping(suite, config)
    encoders = [check_encoder_name(str(name)) for name in config.encoders]
    folder = Path(config.root).expanduser() / suite.name
    plan = current_plan(suite, folder)
    cells = plan.cells(encoders, seeds)
    open_bench(folder, plan)
    console.print(f"folder [bold]{folder}[/], protocol {plan.protocol_hash}", highlight=False, soft_wrap=True)
    with BenchProgress(console) as progress:
        try:
            hire = hire_for(config, folder, filmed=seeds[: int(config.videos)])
            tally = run_bench(folder, plan, cells, hire=hire, watcher=progress, retry=bool(config.retry))
        except KeyboardInterrupt:
            console.print(f"\nstopped; the same command goes on with what is in {folder}", highlight=False)
            raise
    console.print(closing_line(cells, tally), highlight=False)
    return folder


def with_early_stopping(suite: Suite, config: DictConfig) -> Suite:
    """The suite with the command's early stopping, if it names one.

    Raises:
        UsageError: it makes no sense.
    """
    settings = config.early_stopping
    if settings is None:
        return suite
    named = OmegaConf.to_container(settings) if OmegaConf.is_config(settings) else settings
    return replace(suite, early_stopping=read_sequential_test(named))


def current_plan(suite: Suite, folder: Path) -> Plan:
    """The plan of a suite: that of the folder if it was made of the same, since making one loads every simulator."""
    found = load_plan(folder)
    return found if found is not None and found.source == source_of(suite) else make_plan(suite)


def chosen_seeds(seeds: Any, default: int) -> list[int]:
    """Training seeds: 0 to n - 1, or those of a list."""
    if OmegaConf.is_list(seeds):
        chosen = list(seeds)
    else:
        count = default if seeds is None else seeds
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise UsageError(f"seeds must be how many, at least 1, or a list, '[0,1,2]', got {seeds!r}")
        chosen = list(range(count))
    if not chosen or not all(isinstance(seed, int) and not isinstance(seed, bool) and seed >= 0 for seed in chosen):
        raise UsageError(f"seeds must be whole numbers of at least 0, got {chosen}")
    if len(set(chosen)) < len(chosen):
        raise UsageError(f"seeds: one stands there twice, got {chosen}")
    return chosen


def check_settings(config: DictConfig) -> None:
    """Settings of where and how, before anything is loaded."""
    if config.launcher not in LAUNCHERS:
        raise unknown_name("launcher", str(config.launcher), LAUNCHERS)
    if config.workers is not None:
        positive(config, "workers")
    positive(config, "batch_cells")
    if not isinstance(config.videos, int) or config.videos < 0:
        raise UsageError(f"videos must be 0 or more, got {config.videos!r}")
    if config.gpu_gb <= 0:
        raise UsageError(f"gpu_gb must be positive, got {config.gpu_gb}")
    options = config.launcher_options
    if options is not None and not OmegaConf.is_dict(options):
        raise UsageError(f"launcher_options must be a group of settings, '{{name: value}}', got {options!r}")
    if options and config.launcher == "local":
        raise UsageError(f"launcher_options are for launcher=ray and launcher=slurm, got {options}")
    if config.device not in ("auto", "cpu"):
        from embodied.cli.settings import resolve_device  # which loads torch

        resolve_device(str(config.device))


def hire_for(config: DictConfig, folder: Path, *, filmed: Sequence[int]) -> Hire:
    """Who does the work, hired when there is some."""

    def hire(waiting: int) -> Crew:
        from embodied.cli.settings import cache_bytes, resolve_cache

        device = str(config.device)
        cache, most = resolve_cache(config), cache_bytes(config)
        batch = int(config.batch_cells)

        def runner(devices: Sequence[str], processes: int, threads: int) -> MakeRunner:
            from embodied.bench.cell_runner import MakeCellRunner
            from embodied.bench.recipes import Place

            place = Place(processes=processes, threads=threads, cache=cache.absolute(), cache_bytes=most)
            return MakeCellRunner(folder.absolute(), place, list(devices), list(filmed), batch_cells=batch)

        options: dict[str, Any] = dict(config.launcher_options or {})
        if config.launcher == "local":
            from embodied.bench.launchers.local import LocalCrew, devices_of_workers
            from embodied.envs.worker_processes import usable_cores

            found = devices_of_workers(config.workers, device, gpu_gb=float(config.gpu_gb), batch=batch)
            devices = found[:waiting]
            share = max(1, usable_cores() // len(devices))
            return LocalCrew(runner(devices, share if share > 1 else 0, share), size=len(devices), batch=batch)
        remote = ["cuda" if options.get("gpus") or device.startswith("cuda") else "cpu"]
        if config.launcher == "ray":
            from embodied.bench.launchers.ray_cluster import RayCrew

            cpus = int(options.get("cpus", 1))
            made = runner(remote, cpus if cpus > 1 else 0, cpus)
            return RayCrew(made, size=config.workers, options=options, batch=batch)
        from embodied.bench.launchers.slurm import SlurmCrew

        cpus = int(options.get("cpus_per_task", 1))
        remote = ["cuda" if options.get("gpus_per_node") or device.startswith("cuda") else "cpu"]
        made = runner(remote, cpus if cpus > 1 else 0, cpus)
        return SlurmCrew(made, size=config.workers, folder=folder / "slurm", options=options)

    return hire


def closing_line(cells: Sequence[Cell], tally: Tally) -> str:
    """What was run, and what the schedule added."""
    if not tally.items:
        return f"all of {len(cells)} cells have results"
    return (
        f"{tally.items} items in {tally.item_seconds:.0f} s of workers; the schedule added "
        f"{tally.overhead_seconds:.1f} s ({tally.overhead:.1%}), workers had nothing to do for "
        f"{tally.idle_seconds:.0f} s"
    )
