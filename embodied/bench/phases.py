"""The phases of one experiment, each recorded when it is done: of `embodied train`, and of a benchmark's cell."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from embodied.bench import planning
from embodied.bench.cloning import encode, select, train
from embodied.bench.cpu_time import CpuWatch
from embodied.bench.experiment import Experiment
from embodied.bench.feature_checks import check_features, check_on_environment
from embodied.bench.open_loop import evaluate_open_loop, select_open_loop
from embodied.bench.open_loop_report import summarize_open_loop, write_open_loop
from embodied.bench.planning import Planning
from embodied.bench.policy_episodes import REPORT_SEEDS, episode_seeds, run_episodes
from embodied.bench.reinforcement import Reinforcement, learn
from embodied.bench.results import save_outcomes, summarize, write_results
from embodied.bench.several_report import summarize_several, write_several
from embodied.bench.several_robots import SeveralRobots, encode_all, select_several, train_several
from embodied.core.files import write_json
from embodied.core.protocols import Reporter
from embodied.core.run_folder import RunFolder, Stopwatch
from embodied.training.evaluate import Outcome

CPU_SECONDS = "cpu_seconds.json"
AnyExperiment = Experiment | Reinforcement | Planning
Collect = Callable[[], dict[str, Any]]  # makes sure of the demonstrations; JSON-able


class Phases:
    """Each phase is recorded when it is done, so a killed run goes on with the next."""

    def __init__(self, run: RunFolder, reporter: Reporter) -> None:
        self._run, self._reporter = run, reporter

    def do(self, name: str, action: Callable[[], dict[str, Any] | None]) -> None:
        """Run a phase that is not done yet, and keep its result."""
        if self._run.result(name) is None:
            watch, cpu = Stopwatch(), CpuWatch()
            with self._reporter.phase(name):
                result = action()
            self.keep(name, result if result is not None else {}, watch.seconds, cpu.seconds)

    def keep(self, name: str, result: dict[str, Any], seconds: float, cpu_seconds: float) -> None:
        """Record a phase as done."""
        write_json(self._run.path / CPU_SECONDS, {**phase_cpu_seconds(self._run), name: round(cpu_seconds, 3)})
        self._run.finish(name, result, seconds)


def phase_cpu_seconds(run: RunFolder) -> dict[str, float]:
    """Processor seconds of each phase, of the process that ran it and its simulators; of the attempt that ended it."""
    path = run.path / CPU_SECONDS
    return (
        {} if not path.is_file() else {str(name): float(value) for name, value in json.loads(path.read_text()).items()}
    )


def run_phases(experiment: AnyExperiment, run: RunFolder, reporter: Reporter, *, collect: Collect) -> None:
    """From the demonstrations or the first random action to the report; phases that are done are left out."""
    run_training(experiment, run, reporter, collect=collect)
    run_evaluation(experiment, run, reporter)


def run_training(experiment: AnyExperiment, run: RunFolder, reporter: Reporter, *, collect: Collect) -> None:
    """All that comes before the reported episodes; phases that are done are left out."""
    phases = Phases(run, reporter)
    if isinstance(experiment, Reinforcement):
        _reinforce(phases, experiment, run, reporter, collect)
    elif isinstance(experiment, Planning):
        if experiment.store is not None and not experiment.given:
            phases.do("collect", collect)
        phases.do("train", lambda: planning.prepare(experiment, run, reporter))
    else:
        _imitate(phases, experiment, run, reporter, collect)


def run_evaluation(experiment: AnyExperiment, run: RunFolder, reporter: Reporter) -> None:
    """The reported episodes and the report, of what `run_training` has trained; phases that are done are left out."""
    phases = Phases(run, reporter)
    if isinstance(experiment, Experiment) and experiment.open_loop:
        phases.do("evaluate", lambda: evaluate_open_loop(experiment, run, reporter))
        phases.do("report", lambda: write_open_loop(run, summarize_open_loop(experiment, run)))
        return
    phases.do("evaluate", lambda: save_outcomes(run, report_episodes(experiment, run, reporter)))
    phases.do("report", lambda: write_results(run, summarize(experiment, run)))


def run_several(experiment: SeveralRobots, run: RunFolder, reporter: Reporter, *, collect: Collect) -> None:
    """`run_phases` of one policy for several robots."""
    phases, members = Phases(run, reporter), experiment.members
    phases.do("data", collect)
    phases.do("encode", lambda: encode_all(experiment, reporter))
    phases.do("train", lambda: {"checkpoint": train_several(experiment, run, reporter).name})
    phases.do("select", lambda: select_several(experiment, run, reporter))
    phases.do("evaluate", lambda: {name: evaluate_open_loop(each, run, reporter) for name, each in members.items()})
    phases.do("report", lambda: write_several(run, summarize_several(experiment, run)))


def _reinforce(phases: Phases, experiment: Reinforcement, run: RunFolder, reporter: Reporter, collect: Collect) -> None:
    if experiment.store is not None:
        phases.do("collect", collect)

    def reinforce_phase() -> dict[str, Any]:
        if not experiment.reads_frames:
            env = dict(experiment.env)
            check_on_environment(experiment.frozen_encoder, experiment.encoder, env, experiment.feature)
        return {"checkpoint": learn(experiment, run, reporter).name}

    phases.do("reinforce", reinforce_phase)


def _imitate(phases: Phases, experiment: Experiment, run: RunFolder, reporter: Reporter, collect: Collect) -> None:
    def encode_phase() -> None:
        features = encode(experiment, reporter)
        if not experiment.trainable:
            check_features(features, experiment.encoder)

    phases.do("collect" if experiment.recorded is None else "data", collect)
    phases.do("encode", encode_phase)
    phases.do("train", lambda: {"checkpoint": train(experiment, run, reporter).name})
    judge = select_open_loop if experiment.open_loop else select
    phases.do("select", lambda: judge(experiment, run, reporter))


def report_episodes(experiment: AnyExperiment, trained: RunFolder, reporter: Reporter) -> list[Outcome]:
    """The reported episodes: the final policy in the run folder `trained` on fresh seeds, with frames to show."""
    return run_episodes(
        experiment,
        experiment.final_policy(trained),
        episode_seeds(REPORT_SEEDS, experiment.seed, experiment.episodes),
        reporter,
        frames=experiment.record,
        shift=experiment.shift,
        stopping=experiment.stopping,
    )
