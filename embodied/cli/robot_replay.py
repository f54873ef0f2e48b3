"""`embodied robot replay`: recorded actions once more, through the safety chain."""

from __future__ import annotations

import tempfile
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.cli.data import required_path
from embodied.cli.robot_connection import connected, robot_of
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.deployment.operator import Operator
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.recording.episodes import open_recording
from embodied.real_robot.recording.replaying import Replayed, replay
from embodied.real_robot.safety.modes import Mode
from embodied.real_robot.simulator.episodes import EpisodeClient, EpisodeStatus, is_simulated
from embodied.real_robot.stopping import stopping_on_signals
from embodied.real_robot.transports.transport import Transport

_SAY_NS = 50_000_000


class Recorded(NamedTuple):
    """Actions float [T, N] of an episode, and its seed where it was simulated."""

    actions: np.ndarray
    seed: int | None


def run_replay(config: DictConfig) -> int:
    """Replay the actions of one episode, from a recording (.mcap) or an episode store.

    They go through the safety chain as a policy's do: limits, tracking, switch and stop. Without live=true they go out
    below /shadow only. With it the robot moves as soon as the operator's switch is let go and held; a simulated robot
    is first set to the episode's seed, and the switch is held for it. Cameras are not looked at: see to it yourself
    that the scene is as it was.
    """
    robot, path = robot_of(config), required_path(config, "source", "what to replay?")
    if isinstance(config.episode, bool) or not isinstance(config.episode, int) or config.episode < 0:
        raise UsageError(f"episode must be a whole number of at least 0, got {config.episode!r}")
    recorded = read_actions(path, robot, int(config.episode), str(config.commands))
    console, live = Console(), bool(config.live)
    console.print(
        f"replaying {len(recorded.actions)} actions, {len(recorded.actions) / robot.policy_hz:.1f} s, on "
        f"{escape(robot.name)}, " + ("[bold red]live[/]" if live else "in the shadow (live=true moves the robot)"),
        highlight=False,
        soft_wrap=True,
    )
    replayed, status = drive(config, robot, recorded, live=live)
    complete = describe(console, replayed, len(recorded.actions))
    if status is not None:
        ended = "success" if status.success else "failure" if status.phase == "ended" else "not ended"
        console.print(f"the simulated episode after {status.steps} steps: {ended}", highlight=False)
    return 0 if complete else 1


def drive(
    config: DictConfig, robot: RobotDescription, recorded: Recorded, *, live: bool
) -> tuple[Replayed, EpisodeStatus | None]:
    """Replay; how it went, and how the episode of a simulated robot that was moved stands."""
    with (
        connected(config, robot) as transport,
        tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder,
        stopping_on_signals() as stopped,
    ):
        simulated = SimulatedOperator(robot, transport, recorded.seed) if live and is_simulated(robot) else None
        replayed = replay(
            robot,
            transport,
            PolicyMailbox.create(Path(folder) / "mailbox", robot),
            recorded.actions,
            live=live,
            stop=stopped,
            each_cycle=simulated.hold if simulated is not None else lambda now_ns, mode: None,
        )
        return replayed, simulated.status() if simulated is not None else None


class SimulatedOperator:
    """Sets a simulated robot to an episode, lets go of its switch, and then holds it."""

    def __init__(self, robot: RobotDescription, transport: Transport, seed: int | None) -> None:
        self._client, self._operator = EpisodeClient(transport), Operator(robot, transport)
        if seed is not None:
            self._client.reset(seed)
        self._said_ns = 0

    def hold(self, now_ns: int, mode: Mode) -> None:
        """In each cycle: say how the switch is, often enough. It is held once it was seen to be let go."""
        if now_ns - self._said_ns >= _SAY_NS:
            self._operator.enabled, self._said_ns = mode in (Mode.HOLD, Mode.ACTIVE), now_ns
            self._operator.tick()

    def status(self) -> EpisodeStatus | None:
        """Of the episode, once it has ended or a second has passed."""
        return self._client.wait(timeout_s=1.0) or self._client.status


def describe(console: Console, replayed: Replayed, total: int) -> bool:
    """How it went; whether all was replayed."""
    limited = ", ".join(f"{name} {count}" for name, count in replayed.clamps.items() if count) or "none"
    loop = replayed.loop
    console.print(f"clamps, axes times cycles: {limited}", highlight=False, soft_wrap=True)
    console.print(
        f"{loop.cycles} cycles, late by {loop.late_p50_ms:.2f} ms (p50), {loop.late_p99_ms:.2f} (p99)", highlight=False
    )
    if replayed.done >= total:
        console.print(f"[green]✓[/] all {total} actions", highlight=False)
        return True
    console.print(
        f"[red]ended after {replayed.done} of {total} actions[/] ({replayed.mode.value}: {escape(replayed.reason)})",
        highlight=False,
        soft_wrap=True,
    )
    return False


def read_actions(path: str, robot: RobotDescription, episode: int, commands: str) -> Recorded:
    """The actions of an episode.

    Raises:
        UsageError: there is no such episode, or its actions are not of this robot.
        UserError: nothing is there, or it is damaged.
    """
    if is_store(path):
        store = EpisodeStore.open(path)
        _check_number(episode, len(store), path)
        if ACTION not in store.keys:
            raise UsageError(f"{path} holds no {ACTION}")
        found = Recorded(store.read_episode(episode, [ACTION])[ACTION], store.episodes[episode].seed)
    else:
        if not Path(path).exists():
            raise UserError(f"there is no file or folder at {path}")
        with closing(open_recording(path, robot, commands=commands)) as source:
            _check_number(episode, len(source), path)
            chosen = next(islice(source.episodes(), episode, None))
            found = Recorded(np.concatenate([np.asarray(block[ACTION]) for block in chosen.blocks()]), chosen.seed)
    if found.actions.ndim != 2 or found.actions.shape[1] != len(robot.axes):
        raise UsageError(
            f"{path}: its actions have {list(found.actions.shape[1:])} numbers, robot {robot.name} has "
            f"{len(robot.axes)} axes: {', '.join(robot.axis_names)}"
        )
    return found


def _check_number(episode: int, count: int, path: str) -> None:
    if episode >= count:
        raise UsageError(f"episode={episode}: {path} has {count}, counted from 0")
