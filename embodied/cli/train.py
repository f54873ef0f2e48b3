"""Collect demonstrations, encode them once, train a controller on the features, evaluate it in closed loop.

Demonstrations and features are cached; a second run with another head or seed starts at the training. The run folder
holds summary.json, report.html, the policy checkpoints, plots and a video. resume=true continues the newest run with
the same settings. With data=<episode store> it learns from recorded demonstrations instead, and with env=none it is
judged on some of them that are held out, by open-loop action errors; several robots' stores there make one policy for
all of them.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from embodied.bench.experiment import Experiment, check_policy
from embodied.bench.phases import AnyExperiment, Collect, run_phases, run_several
from embodied.bench.planning import check_planning
from embodied.bench.reinforcement import AGENTS, check_agent
from embodied.cli.cloning_settings import make_experiment, unused_settings
from embodied.cli.collect import collect_store
from embodied.cli.config import given_names
from embodied.cli.planning_settings import PLANNER, make_planning
from embodied.cli.recorded_settings import check_same_data, data_record, make_recorded, notes, resolved
from embodied.cli.recorded_several import check_same_stores, make_several, several_notes, several_record
from embodied.cli.reinforcement_settings import make_reinforcement
from embodied.cli.reporter import RichReporter, closing_table, open_loop_table, several_tables
from embodied.cli.runs import open_run, run_verb
from embodied.core.errors import UsageError
from embodied.core.protocols import Reporter


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied train`, with `-m` one run per combination of values."""
    return run_verb("train", arguments, train_once, debug=debug)


def train_once(config: DictConfig, overrides: Sequence[str]) -> int:
    """One run, from the demonstrations or the first random action to the report."""
    console = Console()
    experiment: AnyExperiment
    if OmegaConf.is_config(config.data):
        return train_several(config, overrides, console)
    if config.data is not None:
        config = resolved(config, given_names(overrides))
        experiment = make_recorded(config)
        check_policy(experiment)
    elif config.holdout is not None or config.mixing is not None:
        name = "mixing" if config.holdout is None else "holdout"
        raise UsageError(f"{name} is for recorded demonstrations: write data=<episode store> env=none beside it")
    elif str(config.policy._target_).startswith(AGENTS):
        experiment = make_reinforcement(config)
        check_agent(experiment)
    elif str(config.policy._target_) == PLANNER:
        experiment = make_planning(config)
        check_planning(experiment)
    else:
        experiment = make_experiment(config)
        check_policy(experiment)
    run = open_run(config, run_name(config, experiment), command=shlex.join(["embodied", "train", *overrides]))
    console.print(f"run folder [bold]{run.path}[/]", highlight=False)
    reporter = RichReporter(console)
    for note in unused_settings(config, given_names(overrides)):
        reporter.note(note)
    collect: Collect = lambda: collect_phase(config, experiment, reporter)  # noqa: E731
    if isinstance(experiment, Experiment) and experiment.recorded is not None:
        check_same_data(run, experiment)
        for note in notes(experiment):
            reporter.note(note)
        collect = partial(data_record, experiment)
    run_phases(experiment, run, reporter, collect=collect)
    summary = run.summary()
    assert summary is not None, run.path
    (open_loop_table if "open_loop" in summary else closing_table)(console, summary, run.path)
    return 0


def train_several(config: DictConfig, overrides: Sequence[str], console: Console) -> int:
    """One run of one policy on recordings of several robots."""
    config, experiment = make_several(config, given_names(overrides))
    name = f"{experiment.name[:80]}-{run_suffix(config, experiment.lead)}"
    run = open_run(config, name, command=shlex.join(["embodied", "train", *overrides]))
    console.print(f"run folder [bold]{run.path}[/]", highlight=False)
    check_same_stores(run, experiment)
    reporter = RichReporter(console)
    for note in [*unused_settings(config, given_names(overrides)), *several_notes(experiment)]:
        reporter.note(note)
    run_several(experiment, run, reporter, collect=partial(several_record, experiment))
    summary = run.summary()
    assert summary is not None, run.path
    several_tables(console, summary, run.path)
    return 0


def run_name(config: DictConfig, experiment: AnyExperiment) -> str:
    """`<task>-<encoder>-<head>-seed<seed>`; of a path the last part."""
    return f"{experiment.env['task']}-{run_suffix(config, experiment)}"


def run_suffix(config: DictConfig, experiment: AnyExperiment) -> str:
    """What follows the task in the name of a run."""
    encoder = "".join(letter if letter.isalnum() else "-" for letter in Path(str(config.encoder)).name)[-40:]
    return f"{encoder}-{experiment.head}-seed{config.seed}"


def collect_phase(config: DictConfig, experiment: AnyExperiment, reporter: Reporter) -> dict[str, Any]:
    """The demonstrations."""
    assert experiment.store is not None
    store = collect_store(experiment.store, config, episodes=experiment.demos, reporter=reporter)
    return {"store": str(experiment.store), "frames": store.num_frames}
