"""What a person sees of a deployment."""

import io

import pytest
from rich.console import Console
from rich.live import Live

from embodied.cli.deploy_rerun import RerunLook
from embodied.cli.deploy_view import LinesLook, LiveLook, report_table
from embodied.real_robot.deployment.launcher import DeployReport
from embodied.real_robot.deployment.self_test import Check
from embodied.real_robot.deployment.session import Settings

COMMANDS = {
    "time_ns": 5_000_000_000, "mode": "active", "reason": "engaged", "stale": ["camera corner4: nothing for 0.6 s"],
    "ages_s": {"corner4": 0.61, "policy": None}, "clamps": {"velocity": 3, "jerk": 0}, "late_ms": 0.01,
    "late_max_ms": 2.5, "gaps": 1, "command": [0.1, 0.6, 0.2, -1.0],
}  # fmt: skip
POLICY = {
    "state": "running", "hz": 19.9, "how": "torch on cpu: encoder eager, head eager",
    "stages_ms": {"encode": {"p50": 5.1, "p99": 7.2}, "work": {"p50": 6.0, "p99": 8.0}},
}  # fmt: skip
WANTED = ("active", "engaged", "corner4 0.61 s", "policy never", "velocity 3", "2.5 ms", "nothing for 0.6 s", "7.20")


def console(*, terminal=False):
    return Console(file=io.StringIO(), width=200, force_terminal=terminal)


def test_lines_are_printed_at_changes_only():
    shown = console()
    look = LinesLook(shown)
    for _ in range(5):
        look.show("running", COMMANDS, POLICY, ["the disk is full"])
    look.show("running", {**COMMANDS, "mode": "fault", "reason": "emergency stop"}, POLICY, ["the disk is full"])
    look.tested([Check("corner4", False, "3.0 Hz (at least 14.0)")])
    assert shown.file.getvalue().splitlines() == [
        "the disk is full",
        "running | active (engaged) | policy 19.9 Hz, picture to action p50 6.0 ms p99 8.0 ms",
        "running | fault (emergency stop) | policy 19.9 Hz, picture to action p50 6.0 ms p99 8.0 ms",
        "FAILED corner4: 3.0 Hz (at least 14.0)",
    ]


def test_the_live_view_shows_everything_at_a_glance():
    shown = console(terminal=True)
    with Live(console=shown, auto_refresh=False) as live:
        look = LiveLook(shown, live)
        look.show("starting", None, None, [])
        look.show("starting", None, {"state": "loading"}, [])
        look.show("running", COMMANDS, POLICY, ["the recorder has ended"])
    said = shown.file.getvalue()
    for text in (*WANTED, "the recorder has ended"):
        assert text in said


def test_the_report_has_the_budget_of_each_stage():
    shown = console()
    report_table(shown, DeployReport(commands=COMMANDS, policy=POLICY))
    assert all(text in shown.file.getvalue() for text in (*WANTED, "encoder eager"))


class Stream:
    """Keeps what a Rerun recording would get."""

    def __init__(self):
        self.times, self.logged = [], []

    def set_time(self, timeline, *, duration):
        self.times.append(duration)

    def log(self, entity, value):
        self.logged.append((entity, type(value).__name__))


def test_rerun_gets_the_same_numbers_and_each_change_of_mode():
    pytest.importorskip("rerun")
    stream, shown = Stream(), console()
    look = RerunLook(LinesLook(shown), Settings(robot="sim", policy="p"), recording=stream)
    look.show("starting", None, None, [])
    for _ in range(2):
        look.show("running", COMMANDS, POLICY, [])
    assert stream.times == [5.0, 5.0] and "active" in shown.file.getvalue()
    entities = [entity for entity, kind in stream.logged if kind == "Scalars"]
    for entity in ("age/corner4", "clamps/velocity", "command/hand.x", "policy/encode_ms", "lateness_ms"):
        assert entities.count(entity) == 2
    assert stream.logged.count(("mode", "TextLog")) == 1
