"""`embodied robot sim`: a simulated robot behind the topics of its description."""

from __future__ import annotations

import time

from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from embodied.cli.robot_connection import connected, robot_of, seconds_of
from embodied.core.errors import UsageError
from embodied.real_robot.simulator.episodes import EpisodeStatus
from embodied.real_robot.simulator.faults import read_faults
from embodied.real_robot.simulator.running import run_simulator
from embodied.real_robot.simulator.simulated_robot import SimulatedRobot
from embodied.real_robot.stopping import stopping_on_signals


def run_sim(config: DictConfig) -> int:
    """Be a simulated robot until Ctrl-C or for seconds=.

    An episode waits for the first command, and the next one for a request (embodied deploy makes it) by seed on
    /sim/episode/reset. When commands stop coming the robot holds after timeout_s. Faults of its sensors are set by
    faults= or, while it runs, as JSON on /sim/faults.
    """
    robot, end = robot_of(config), time.monotonic() + seconds_of(config)
    env = OmegaConf.to_container(config.env, resolve=True)
    faults = OmegaConf.to_container(config.faults, resolve=True) if OmegaConf.is_dict(config.faults) else {}
    if config.faults is not None and not OmegaConf.is_dict(config.faults):
        raise UsageError(f"faults must be like '{{loss: 0.2}}', got {config.faults!r}")
    assert isinstance(env, dict) and isinstance(faults, dict), (env, faults)
    console = Console()
    shown: list[EpisodeStatus] = []

    def show(simulated: SimulatedRobot, action: object) -> None:
        status = simulated.status
        if not shown or (shown[-1].number, shown[-1].phase) != (status.number, status.phase):
            ended = f": {'success' if status.success else 'failure'} after {status.steps} steps"
            text = f"episode {status.number}, seed {status.seed}: {status.phase}"
            console.print(text + (ended if status.phase == "ended" else ""), highlight=False)
            shown.append(status)

    with connected(config, robot) as transport, stopping_on_signals() as stopped:
        text = f"simulating {env['suite']} {config.task or ''} as robot {robot.name}"
        console.print(f"{text} on {config.transport or robot.transport}; Ctrl-C ends it", highlight=False)
        report = run_simulator(
            robot,
            transport,
            env={**{str(name): value for name, value in env.items()}, "task": config.task},
            seeds=_seeds(config),
            command_timeout_s=seconds_of(config, "timeout_s"),
            faults=read_faults({str(name): value for name, value in faults.items()}),
            stop=lambda: stopped() or time.monotonic() >= end,
            after_step=show,
        )
    console.print(
        f"[green]✓[/] {report.periods} periods at {robot.policy_hz:g} Hz, {report.left_out} left out, "
        f"{report.episodes} episodes; late by {report.late_p50_ms:.2f} ms (p50), {report.late_p99_ms:.2f} (p99); a "
        f"simulated second takes {report.slower:.3g} s",
        highlight=False,
        soft_wrap=True,
    )
    return 0


def _seeds(config: DictConfig) -> list[int]:
    seeds = list(config.seeds)
    if not seeds or any(isinstance(seed, bool) or not isinstance(seed, int) or seed < 0 for seed in seeds):
        raise UsageError(f"seeds must be a list of whole numbers of at least 0, '[0,1,2]', got {seeds}")
    return seeds
