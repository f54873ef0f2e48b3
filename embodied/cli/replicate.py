"""Test a paper's headline claim again.

A preset runs a small benchmark for a claim, at a size that fits a laptop, and says whether its direction is the same.

  embodied replicate list               the presets
  embodied replicate mvp                runs its small benchmark, resumably, and writes replicate.html
  embodied replicate mvp roles='{supervised: hf:google/vit-base-patch16-224}' seeds=10
  embodied replicate rpt size=tiny      one that pre-trains first, at a size that only shows that it runs

The cells run as those of embodied bench do: launcher, workers, seeds, root, ... mean the same, and report.html is
written beside. What has to be pre-trained comes before, in worker processes of this machine; where a job fails that no
cell needs, the rest is run and judged all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.bench.replicate import Replication, check_replication, load_replication, names_run, preset_names
from embodied.bench.replicate_jobs import RUNS, load_records, run_path
from embodied.bench.replicate_report import computing_seconds, verdict_table, write_replication
from embodied.bench.replicate_verdicts import judge, judge_curves, judge_measures
from embodied.bench.result_files import load_results
from embodied.cli.bench_arguments import compose_sub_verb
from embodied.cli.data import quoted
from embodied.core.errors import UsageError

ITS_OWN = ("suite=", "encoders=")  # settings of embodied bench that a preset decides
INTERRUPTED = 130


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied replicate`."""
    if not arguments or arguments[0] == "list":
        show_presets(Console())
        return 0
    taken = next((text for text in arguments if text.startswith(ITS_OWN)), None)
    if taken is not None:
        raise UsageError(
            f"{taken}: a preset has its own suite; name encoders by role, as in roles='{{masked: default}}'"
        )
    config = compose_sub_verb("replicate", arguments, positional=("paper",), about=__doc__, beside="bench")
    if config is None:
        return 0
    replication = chosen_replication(config)
    check_replication(replication)
    console = Console()
    try:
        return replicate(replication, arguments, config, console)
    except KeyboardInterrupt:  # the benchmark has said how to go on, and so do pre-trainings
        return INTERRUPTED


def chosen_replication(config: DictConfig) -> Replication:
    """The preset that a command means, with its roles and size.

    Raises:
        UsageError: there is no such preset, role or size.
    """
    roles = OmegaConf.to_container(config.roles) if OmegaConf.is_dict(config.roles) else config.roles
    if roles is not None and not isinstance(roles, dict):
        raise UsageError(f"roles must be a group, '{{supervised: hf:...}}', got {roles!r}")
    named = {str(name): encoder for name, encoder in (roles or {}).items()}
    size = None if config.size is None else str(config.size)
    return load_replication(str(config.paper), named, size=size, root=str(config.root))


def replicate(replication: Replication, arguments: Sequence[str], config: DictConfig, console: Console) -> int:
    """Pre-train, run the benchmarks, judge, and write the page; 1 where something has failed."""
    from embodied.cli.bench import bench, check_settings, chosen_seeds

    check_settings(config)
    check_seeds(replication, [seed for suite in replication.suites for seed in chosen_seeds(config.seeds, suite.seeds)])
    broken: dict[str, str] = {}
    if replication.pretraining.jobs:
        check_plans(replication)
        broken = pretrain(replication, config, console)
        if lacking := lacking_jobs(replication):
            console.print(f"the benchmark needs {', '.join(lacking)}: it was not begun", highlight=False)
            return 1
    several = len(replication.suites) > 1
    inside = [f"root={quoted(str(replication.folder))}"] if several else []
    encoders = f"encoders=[{','.join(map(quoted, replication.encoders))}]"
    chosen = compose_sub_verb("replicate", [*arguments, *inside, encoders], positional=("paper",), about=None)
    assert chosen is not None
    failed = [bench(suite, chosen, console) for suite in replication.suites]
    folders = [Path(chosen.root).expanduser() / suite.name for suite in replication.suites]
    results = [result for folder in folders for result in load_results(folder)]
    verdicts = judge(replication, results)
    jobs = load_records(replication.folder, replication.pretraining)
    curves, measures = judge_curves(replication, jobs), judge_measures(replication, jobs)
    page = write_replication(
        replication, verdicts, computing_seconds(results), curves=curves, measures=measures, jobs=jobs
    )
    console.print(verdict_table(replication, verdicts, curves, measures))
    console.print(f"verdicts [bold]{page}[/]", highlight=False, soft_wrap=True)
    if broken:
        console.print(f"[red]judged without {escape(', '.join(broken))}[/]: failed, see above", highlight=False)
    return int(any(failed) or bool(broken))


def check_plans(replication: Replication) -> None:
    """Every setting of every suite can be resolved, before hours of pre-training; not where all of it is done.

    Controllers that name runs of jobs are left out: these runs are not there yet.

    Raises:
        UsageError: one cannot.
    """
    from embodied.cli.bench_plan import make_plan

    folder, pretraining = replication.folder, replication.pretraining
    if len(load_records(folder, pretraining)) == len(pretraining.jobs):
        return
    for suite in replication.suites:
        later = {name for job in pretraining.jobs for name in names_run(suite, run_path(folder, job))}
        now = {name: settings for name, settings in suite.controllers.items() if name not in later}
        named = {encoder: tuple(name for name in names if name in now) for encoder, names in suite.baselines.items()}
        make_plan(replace(suite, controllers=now, baselines=named))


def lacking_jobs(replication: Replication) -> list[str]:
    """Pre-trainings that cells need and that are not done."""
    done = load_records(replication.folder, replication.pretraining)
    return [job.key for job in replication.needed_jobs() if job.key not in done]


def check_seeds(replication: Replication, seeds: Sequence[int]) -> None:
    """Where every seed has an encoder of its own, there are as many as the preset trains.

    Raises:
        UsageError: a seed has none.
    """
    most = replication.pretraining.seeds()
    if most is not None and max(seeds) >= most:
        raise UsageError(
            f"seeds: {replication.name} pre-trains an encoder for each seed from 0 to {most - 1}, there is none for "
            f"seed {max(seeds)}"
        )


def pretrain(replication: Replication, config: DictConfig, console: Console) -> dict[str, str]:
    """What comes before the benchmark; why stores and jobs have failed, by key."""
    from embodied.cli.replicate_jobs import run_jobs

    try:
        failed = run_jobs(replication, config, console)
    except KeyboardInterrupt:
        console.print(f"\nstopped; the same command goes on with what is in {replication.folder}", highlight=False)
        raise
    for key, reason in failed.items():
        console.print(f"[red]{escape(key)} has failed[/]: {escape(reason)}", highlight=False, soft_wrap=True)
    if failed:
        console.print(f"the same command tries again; logs are in {replication.folder / RUNS}", highlight=False)
    return failed


def show_presets(console: Console) -> None:
    """`embodied replicate list`."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, text in preset_names().items():
        table.add_row(f"[bold cyan]{name}[/]", text)
    console.print(table)
    console.print(
        "\n[cyan]embodied replicate <paper>[/] runs one; [cyan]--help[/] shows the settings.", highlight=False
    )
