"""A deployment as a stream in the Rerun viewer: mode, ages, lateness, clamps, latencies, command."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from embodied.core.errors import MissingExtraError
from embodied.real_robot.deployment.episodes import Record
from embodied.real_robot.deployment.launcher import Look
from embodied.real_robot.deployment.self_test import Check
from embodied.real_robot.deployment.session import Settings


class RerunLook:
    """Opens a viewer and logs to it, beside another view.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
    """

    def __init__(self, other: Look, settings: Settings, *, recording: Any = None) -> None:
        try:
            import rerun
        except ImportError as error:
            raise MissingExtraError("rerun-sdk", "view") from error
        self._rerun, self._other, self._names = rerun, other, settings.load_robot().axis_names
        self._mode = ""
        self._stream = recording or rerun.RecordingStream("embodied deploy")
        if recording is None:
            self._stream.spawn()

    def show(self, phase: str, commands: Record, policy: Record, notes: Sequence[str]) -> None:
        """Log the newest records."""
        self._other.show(phase, commands, policy, notes)
        if commands is None:
            return
        self._stream.set_time("time", duration=commands["time_ns"] * 1e-9)
        for name, value in _numbers(commands, policy, self._names):
            self._stream.log(name, self._rerun.Scalars(value))
        mode = f"{commands['mode']}: {commands['reason']}"
        if mode != self._mode:
            self._mode = mode
            self._stream.log("mode", self._rerun.TextLog(mode))

    def tested(self, checks: Sequence[Check]) -> None:
        """The self-test, as the other view has it."""
        self._other.tested(checks)


def _numbers(commands: dict[str, Any], policy: Record, names: Sequence[str]) -> list[tuple[str, float]]:
    """Entity and value of everything that is a number."""
    found = [(f"age/{name}", age) for name, age in commands["ages_s"].items() if age is not None]
    found += [(f"clamps/{stage}", count) for stage, count in commands["clamps"].items()]
    found.append(("lateness_ms", commands["late_ms"]))
    if commands["command"] is not None:
        found += [(f"command/{name}", value) for name, value in zip(names, commands["command"], strict=True)]
    if policy is not None and policy.get("state") == "running":
        found.append(("policy/hz", policy["hz"]))
        found += [(f"policy/{stage}_ms", taken["p50"]) for stage, taken in policy["stages_ms"].items()]
    return found
