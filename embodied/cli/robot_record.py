"""`embodied robot record` and `teleop-log`: what goes to and from a robot, as a file or as episodes."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from embodied.cli.data import required_path
from embodied.cli.robot_connection import connected, robot_of, seconds_of
from embodied.core.errors import UserError
from embodied.core.files import cache_folder
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.recording.appending import append_recording
from embodied.real_robot.recording.episodes import open_recording
from embodied.real_robot.recording.process import RecorderReport, run_recorder
from embodied.real_robot.simulator.episodes import INSTRUCTION
from embodied.real_robot.stopping import stopping_on_signals
from embodied.real_robot.transports.transport import LATCHED, Transport

NICENESS = 10  # below the processes that move the robot


def run_record(config: DictConfig) -> int:
    """Record all topics of a robot's description into one MCAP file, until Ctrl-C or for seconds=.

    Messages are kept byte for byte, with their definitions: ROS 2, Foxglove and embodied data import read the file. A
    full disk ends the recording with exit code 1 and never disturbs the robot.
    """
    robot, path = robot_of(config), Path(required_path(config, "to", "which file to write?"))
    console = Console()
    with connected(config, robot) as transport:
        _announce(console, robot, path)
        report = record(robot, transport, path, seconds=seconds_of(config), compression=str(config.compression))
    describe(console, report)
    return int(report.failure is not None)


def run_teleop_log(config: DictConfig) -> int:
    """Record a demonstration while somebody else drives the robot, and make episodes of it.

    The actions are the robot's own commands, as whatever drives it sends them on the command topics of the
    description. The recording ends with Ctrl-C or after seconds=. With to=NAME.mcap it is that file; else it stays in
    the cache, under recordings/, and its episode is added to the store at to=, which is made if there is none.
    """
    robot, to = robot_of(config), required_path(config, "to", "where to write the episodes, or which file?")
    console = Console()
    file = Path(to) if to.endswith(".mcap") else _recordings() / f"{robot.name}-{time.strftime('%Y%m%d-%H%M%S')}.mcap"
    with connected(config, robot) as transport:
        if config.task is not None:
            instruction = transport.advertise(INSTRUCTION.name, INSTRUCTION.type, LATCHED)
            instruction.publish(encode(message_type(INSTRUCTION.type)(data=str(config.task))))
        _announce(console, robot, file)
        report = record(robot, transport, file, seconds=seconds_of(config), compression="lz4")
    describe(console, report)
    if report.failure is not None:
        return 1
    if not to.endswith(".mcap"):
        add_episodes(console, robot, report.path, to)
    return 0


def record(
    robot: RobotDescription, transport: Transport, path: Path, *, seconds: float, compression: str
) -> RecorderReport:
    """Record in this process, below the others in priority."""
    end = time.monotonic() + seconds
    os.nice(NICENESS)
    with stopping_on_signals() as stopped:
        return run_recorder(
            robot, transport, path, stop=lambda: stopped() or time.monotonic() >= end, compression=compression
        )


def describe(console: Console, report: RecorderReport) -> None:
    """What was recorded, topic by topic."""
    for topic, count in report.messages.items():
        if count:
            console.print(f"  {count:7,} {escape(topic)}", highlight=False)
    if report.silent:
        console.print(f"  nothing of {escape(', '.join(report.silent))}", highlight=False, soft_wrap=True)
    if report.lost:
        console.print(f"[yellow]{report.lost:,} messages were lost[/]: the disk did not keep up", highlight=False)
    if report.failure is not None:
        console.print(f"[red]the recording ended early:[/] {escape(report.failure)}", highlight=False, soft_wrap=True)
        return
    console.print(
        f"[green]✓[/] {report.seconds:.1f} s, {report.written_bytes / 1e6:,.1f} MB of messages: "
        f"[bold]{escape(str(report.path))}[/]",
        highlight=False,
        soft_wrap=True,
    )


def add_episodes(console: Console, robot: RobotDescription, file: Path, to: str) -> None:
    """Add the episodes of a recording to a store."""
    try:
        with closing(open_recording(file, robot)) as source:
            added = append_recording(source, to)
    except UserError as error:
        again = f"embodied data import {file} another/store robot={robot.name}"
        raise UserError(f"{error}\nThe recording is kept; to try again: {again}") from error
    console.print(
        f"[green]✓[/] {added.episodes} episodes, {added.frames:,} frames added to [bold]{escape(to)}[/], which has "
        f"{added.total}",
        highlight=False,
        soft_wrap=True,
    )


def _recordings() -> Path:
    return cache_folder() / "recordings"


def _announce(console: Console, robot: RobotDescription, path: Path) -> None:
    text = f"recording {escape(robot.name)} to [bold]{escape(str(path))}[/]; Ctrl-C ends it"
    console.print(text, highlight=False, soft_wrap=True)
