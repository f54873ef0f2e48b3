"""`embodied robot check` and `latency`: what is heard of a robot, against what its description promises."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from embodied.cli.robot_connection import connected, robot_of, seconds_of
from embodied.core.errors import UserError
from embodied.real_robot.checking.checks import Finding, findings
from embodied.real_robot.checking.listening import TopicLog, listen, sensor_topics
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.transports.transport import COMMAND

_MARKS = {"pass": "[green]pass[/]", "fail": "[red]FAIL[/]", "note": "[yellow]note[/]"}
_SHARES = (50, 90, 99, 100)


def run_check(config: DictConfig, *, as_json: bool) -> int:
    """Compare a robot with its description; nothing is moved and no command is sent.

    Looked at: that all topics are heard with their types, rates and ages by source stamp, names and order of joints,
    the pose against the limits and the workspace, pictures, who takes and who sends commands, and the operator's
    switch and stop. The exit code is 0 when nothing fails, else 1.
    """
    robot, seconds = robot_of(config), seconds_of(config)
    with connected(config, robot) as transport:
        writer = transport.advertise(robot.command.name, robot.command.type, COMMAND)  # to count who listens; silent
        topics = [*sensor_topics(robot), robot.enable, robot.estop, robot.command]
        logs = listen(transport, topics, seconds=seconds)
        others = logs[robot.command.name].subscription
        commanders = 0 if others is None else others.matched() - 1  # the silent writer is one of them
        found = findings(robot, logs, listeners=_others(writer.matched()), commanders=max(0, commanders))
    failed = sum(finding.verdict == "fail" for finding in found)
    if as_json:
        print(json.dumps({"robot": robot.name, "failed": failed, "findings": [f._asdict() for f in found]}, indent=2))
    else:
        show_findings(Console(), robot, found, failed)
    return int(failed > 0)


def _others(matched: int) -> int:
    """Who takes commands besides the listening of this check."""
    return max(0, matched - 1)


def show_findings(console: Console, robot: RobotDescription, found: Sequence[Finding], failed: int) -> None:
    """The table, and what it comes to."""
    console.print(
        f"[bold]{escape(robot.name)}[/]: {len(robot.axes)} axes, {robot.kind}, commands at {robot.command_hz:g} Hz, "
        f"policy at {robot.policy_hz:g} Hz",
        highlight=False,
        soft_wrap=True,
    )
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(style="cyan")
    table.add_column(overflow="fold")
    for finding in found:
        table.add_row(_MARKS[finding.verdict], escape(finding.what), escape(finding.found))
    console.print(table, highlight=False)
    console.print(f"[red]{failed} of {len(found)} failed[/]" if failed else "[green]✓[/] as described", highlight=False)


def run_latency(config: DictConfig, *, as_json: bool) -> int:
    """Percentiles of the ages of messages and of the times between them.

    Age is from a message's own stamp to its receipt: of a camera from exposure to here, if the robot's clock agrees
    with this computer's. Jitter is how far the time between two messages is from its median.
    """
    robot, seconds = robot_of(config), seconds_of(config)
    topics = [*sensor_topics(robot), robot.command, robot.status]
    with connected(config, robot) as transport:
        logs = listen(transport, topics, seconds=seconds)
    if not any(len(log.received) for log in logs.values()):
        raise UserError(f"nothing was heard of robot {robot.name} in {seconds:g} s: embodied robot check says more")
    if as_json:
        print(json.dumps({name: numbers(log) for name, log in logs.items()}, indent=2))
        return 0
    console = Console()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("topic", "messages", "Hz"):
        table.add_column(title, justify="left" if title == "topic" else "right", overflow="fold")
    for title in ("age", "jitter"):
        table.add_column(f"{title} p50 / p90 / p99 / max, ms", justify="right")
    for name, log in logs.items():
        facts = numbers(log)
        cells = [_cells(facts["age_ms"]), _cells(facts["jitter_ms"])]
        table.add_row(escape(name), str(facts["messages"]), f"{facts['rate_hz']:.1f}", *cells)
    console.print(table, highlight=False)
    return 0


def numbers(log: TopicLog) -> dict[str, Any]:
    """What `embodied robot latency --json` prints of a topic; ms."""
    intervals = log.intervals_s
    jitter = np.abs(intervals - np.median(intervals)) if len(intervals) else intervals
    return {
        "messages": len(log.received),
        "malformed": log.malformed,
        "rate_hz": round(log.rate_hz, 3),
        "megabytes": round(log.received_bytes / 1e6, 3),
        "age_ms": _percentiles(log.ages_s),
        "jitter_ms": _percentiles(jitter),
    }


def _percentiles(values: np.ndarray) -> dict[str, float] | None:
    if not len(values):
        return None
    found = np.percentile(values * 1e3, _SHARES)
    names = [f"p{share}" if share < 100 else "max" for share in _SHARES]
    return {name: round(float(value), 3) for name, value in zip(names, found, strict=True)}


def _cells(values: dict[str, float] | None) -> str:
    return "-" if values is None else " / ".join(f"{value:.2f}" for value in values.values())
