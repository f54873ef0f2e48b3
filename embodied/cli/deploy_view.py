"""What a person sees of a deployment: a live view on a terminal, lines elsewhere, and Rerun if asked for."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from embodied.cli.deploy_rerun import RerunLook
from embodied.core.errors import unknown_name
from embodied.real_robot.deployment.episodes import Record
from embodied.real_robot.deployment.launcher import DeployReport, Look
from embodied.real_robot.deployment.self_test import Check
from embodied.real_robot.deployment.session import Settings
from embodied.real_robot.policy.stages import STAGES, WORK

VIEWS = ("auto", "lines", "rerun")
_COLOURS = {"active": "green", "hold": "yellow", "shadow": "cyan", "fault": "red"}
_LINE_S = 5.0
_STAGES = (*STAGES, WORK)


@contextmanager
def open_look(view: str, console: Console, settings: Settings) -> Iterator[Look]:
    """The view of that name.

    Raises:
        UsageError: there is none.
        MissingExtraError: rerun-sdk is not installed.
    """
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    if view == "rerun":
        yield RerunLook(LinesLook(console), settings)
    elif view == "auto" and console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield LiveLook(console, live)
    else:
        yield LinesLook(console)


class LinesLook:
    """A line at each change of mode, and every five seconds."""

    def __init__(self, console: Console) -> None:
        self._console, self._last, self._next, self._notes = console, "", 0.0, 0

    def show(self, phase: str, commands: Record, policy: Record, notes: Sequence[str]) -> None:
        """One line, if there is something to say."""
        for note in notes[self._notes :]:
            self._console.print(note, highlight=False, markup=False)
        self._notes = len(notes)
        mode = "" if commands is None else f"{commands['mode']} ({commands['reason']})"
        if f"{phase} {mode}" == self._last and time.monotonic() < self._next:
            return
        self._last, self._next = f"{phase} {mode}", time.monotonic() + _LINE_S
        parts = [phase, mode, _brief(policy)]
        self._console.print(" | ".join(filter(None, parts)), highlight=False, markup=False)

    def tested(self, checks: Sequence[Check]) -> None:
        """The self-test."""
        for check in checks:
            said = f"{'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}"
            self._console.print(said, highlight=False, markup=False)


class LiveLook:
    """Everything at a glance, drawn anew four times a second."""

    def __init__(self, console: Console, live: Live) -> None:
        self._live, self._lines = live, LinesLook(console)

    def show(self, phase: str, commands: Record, policy: Record, notes: Sequence[str]) -> None:
        """Draw."""
        head = Text(f"{phase}  ")
        if commands is not None:
            head.append(f" {commands['mode']} ", style=f"reverse {_COLOURS[commands['mode']]}")
            head.append(f"  {commands['reason']}")
        parts: list[Table | Text] = [head]
        if commands is not None:
            parts.append(_commands_table(commands))
        if policy is not None:
            parts.append(_policy_table(policy))
        parts += [Text(note, style="red") for note in notes[-3:]]
        self._live.update(Group(*parts), refresh=True)

    def tested(self, checks: Sequence[Check]) -> None:
        """The self-test, above the view."""
        self._lines.tested(checks)


def _brief(policy: Record) -> str:
    if policy is None or policy["state"] != "running":
        return "" if policy is None else f"policy {policy['state']}"
    work = policy["stages_ms"].get("work")
    taken = "" if work is None else f", picture to action p50 {work['p50']:.1f} ms p99 {work['p99']:.1f} ms"
    return f"policy {policy['hz']:.1f} Hz{taken}"


def _commands_table(commands: dict[str, object]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    ages, clamps = commands["ages_s"], commands["clamps"]
    assert isinstance(ages, dict) and isinstance(clamps, dict)
    table.add_row(
        "ages", "  ".join(f"{name} {'never' if age is None else f'{age:.2f} s'}" for name, age in ages.items())
    )
    counted = "  ".join(f"{stage} {count}" for stage, count in clamps.items() if count)
    table.add_row("clamps", counted or "none")
    table.add_row(
        "lateness", f"now {commands['late_ms']} ms, most {commands['late_max_ms']} ms, gaps {commands['gaps']}"
    )
    stale = commands["stale"]
    assert isinstance(stale, list)
    table.add_row("not fresh", "; ".join(stale) or "nothing")
    return table


def _policy_table(policy: dict[str, object]) -> Table:
    stages = policy.get("stages_ms", {})
    assert isinstance(stages, dict)
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column(_brief(policy) or "policy", justify="left")
    shown = [name for name in _STAGES if name in stages]
    for name in shown:
        table.add_column(name, justify="right")
    for share in ("p50", "p99"):
        table.add_row(f"{share} ms", *(f"{stages[name][share]:.2f}" for name in shown))
    return table


def report_table(console: Console, report: DeployReport) -> None:
    """The latency budget and the command process at the end."""
    if report.policy is not None and report.policy.get("stages_ms"):
        console.print(report.policy["how"], highlight=False, markup=False)
        console.print(_policy_table(report.policy))
    if report.commands is not None:
        console.print(
            f"last mode: {report.commands['mode']} ({report.commands['reason']})", highlight=False, markup=False
        )
        console.print(_commands_table(report.commands))
