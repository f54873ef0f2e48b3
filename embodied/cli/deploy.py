"""Run a trained policy on a robot: policy, commands with the safety layer, and recorder, in a process each.

Without live=true nothing moves: commands go out below /shadow. A real robot moves only while its operator holds the
switch (/embodied/enable at 10 Hz or more); the simulated one's is held by this command. A software stop is not
safety-rated: keep the hardware emergency stop within reach. See docs/robot.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.console import Console

from embodied.bench.policy_episodes import REPORT_SEEDS, episode_seeds, evaluate_checkpoint, open_simulators
from embodied.bench.statistics.intervals import wilson_interval
from embodied.cli.config import compose_config, positive
from embodied.cli.deploy_server import server_settings
from embodied.cli.deploy_view import open_look, report_table
from embodied.cli.evaluate import embodiment, policy_path
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import resolve_device
from embodied.core.errors import UsageError, UserError
from embodied.core.run_folder import RunFolder
from embodied.envs.registry import NO_SIMULATOR, load_suite
from embodied.policies.artifact import read_description
from embodied.real_robot.deployment.episodes import EpisodeOutcome
from embodied.real_robot.deployment.launcher import DeployReport, Options, deploy
from embodied.real_robot.deployment.session import Settings
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.stopping import stop_on_signals


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied deploy`; exit code 1 where something ended that must not."""
    config = compose_config("deploy", arguments)
    console = Console()
    path = policy_file(config) if config.run or config.server is None else None
    settings, options = deployment(config, path, {} if path is None else read_description(path, embodiment(config)))
    with open_look(str(config.view), console, settings) as look:
        report = deploy(settings, options, look=look, stop=stop_on_signals())
    report_table(console, report)
    if options.seeds is not None and path is not None:
        conclude(console, report, path, config)
    if report.failure:
        raise UserError(f"the deployment did not end as it should: {report.failure}")
    return 0


def policy_file(config: DictConfig) -> Path:
    """The policy that `run` and `checkpoint` name."""
    if not config.run:
        raise UsageError("which policy? write run=<run folder>, as embodied train printed it, or a policy file")
    given = Path(config.run).expanduser()
    return given if given.suffix == ".safetensors" else policy_path(RunFolder.open(given), str(config.checkpoint))


def deployment(config: DictConfig, path: Path | None, metadata: Mapping[str, Any]) -> tuple[Settings, Options]:
    """What is to be run, from the settings and the policy's description.

    Args:
        path, metadata: None and empty where all that is known of the policy is the server that has it.

    Raises:
        UsageError: settings contradict each other.
    """
    if config.seconds is not None and (isinstance(config.seconds, bool | str) or not config.seconds > 0):
        raise UsageError(f"seconds must be a positive number, got {config.seconds!r}")
    robot = load_robot(str(config.robot))
    simulate = robot.name == "sim" if config.simulate is None else bool(config.simulate)
    operate = simulate if config.operate is None else bool(config.operate)
    if operate and robot.name != "sim":
        raise UsageError(f"operate=true holds the switch of the simulated robot only: {robot.name} needs a person")
    env, server = dict(metadata.get("env", {})), server_settings(config)
    if simulate and not env:
        raise UsageError("simulate=true simulates the task of a policy: name it with run=, beside server=")
    if simulate and env["suite"] == NO_SIMULATOR:
        raise UsageError(
            "this policy was trained on recordings, not on a task that could be simulated: start the robot yourself "
            "(embodied robot sim task=...) and write simulate=false"
        )
    transport = None if config.transport is None else str(config.transport)
    described = robot.transport_options if transport in (None, robot.transport) else {}
    told = {name: config[name] for name in ("domain", "interface") if config[name] is not None}
    settings = Settings(
        robot=str(config.robot) if not Path(config.robot).is_file() else str(Path(config.robot).resolve()),
        policy="" if path is None else str(path.resolve()),
        embodiment=None if path is None else embodiment(config),
        server=server,
        live=bool(config.live),
        transport=transport,
        transport_options={**described, **told},
        device=str(resolve_device(str(config.device))),
        backend=str(config.backend),
        acceleration=str(config.acceleration),
        instruction=instruction(config, env) if env else None,
        same_names=bool(config.same_names),
        guidance=bool(config.guidance),
        record=None if config.record is None else str(Path(config.record).expanduser().resolve()),
        priority=config.priority,
        cpu=config.cpu,
        lock_memory=bool(config.lock_memory),
        simulated=env if simulate else None,
    )
    options = Options(
        restart=bool(config.restart),
        seconds=config.seconds,
        seeds=evaluation_seeds(config, operated=operate and bool(config.live)),
        operate=operate,
    )
    return settings, options


def evaluation_seeds(config: DictConfig, *, operated: bool) -> tuple[int, ...] | None:
    """Of the episodes: those of `embodied evaluate`; None where the robot just runs.

    Raises:
        UsageError: episodes are asked for where nobody can lead them.
    """
    if config.episodes is None and not config.compare:
        return None
    if not operated:
        raise UsageError("episodes are led on the simulated robot only: write robot=sim live=true episodes=20")
    positive(config, "episodes")
    return tuple(episode_seeds(REPORT_SEEDS, int(config.seed), int(config.episodes)))


def instruction(config: DictConfig, env: Mapping[str, Any]) -> str | None:
    """What to do: as said, or as the policy's task is called; of recordings, what all of them were told."""
    if config.instruction is not None:
        return str(config.instruction)
    if env["suite"] == NO_SIMULATOR:
        told = [str(text) for text in env.get("instructions", ())]
        return told[0] if len(told) == 1 else None
    return load_suite(str(env["suite"])).instructions.get(str(env["task"]))


def conclude(console: Console, report: DeployReport, path: Path, config: DictConfig) -> None:
    """Success on the robot, and with `compare` in process, with their intervals."""
    outcomes = report.outcomes
    if not outcomes:
        return
    console.print(f"on the robot: {rate([outcome.success for outcome in outcomes])}", highlight=False)
    for outcome in outcomes:
        if outcome.reason:
            console.print(f"  seed {outcome.seed}: {outcome.reason}", highlight=False)
    if config.compare:
        compare(console, outcomes, path, config)


def compare(console: Console, outcomes: Sequence[EpisodeOutcome], path: Path, config: DictConfig) -> None:
    """The same episodes in process, as `embodied evaluate` runs them."""
    device, seeds = resolve_device(str(config.device)), [outcome.seed for outcome in outcomes]
    with open_simulators(path, device=device, count=1, frames=False) as simulators:
        inside = evaluate_checkpoint(
            path, seeds, simulators, device=device, reporter=RichReporter(console), description="in process"
        )
    console.print(f"in process:   {rate([outcome.success for outcome in inside])}", highlight=False)
    same = sum(ours.success == theirs.success for ours, theirs in zip(outcomes, inside, strict=True))
    console.print(f"the same outcome in {same} of {len(seeds)} episodes", highlight=False)


def rate(successes: Sequence[bool]) -> str:
    """Success with its interval, in words."""
    low, high = wilson_interval(sum(successes), len(successes))
    return (
        f"success {sum(successes) / len(successes):.0%} ({sum(successes)} of {len(successes)}, 95 % interval "
        f"{low:.0%} to {high:.0%})"
    )
