"""Before a robot is engaged: is everything heard, is it fresh, is the policy fast enough."""

from __future__ import annotations

from typing import Any, NamedTuple

from embodied.real_robot.description.description import RobotDescription

_SLOWEST = 0.7  # of the policy's rate that cameras and policy must reach: a busy machine skips a step now and then
_NS = 1e-9


class Check(NamedTuple):
    """One thing that was looked at; `detail`: what was seen and what is wanted."""

    name: str
    passed: bool
    detail: str


def self_test(
    robot: RobotDescription, commands: dict[str, Any], before: dict[str, Any], policy: dict[str, Any]
) -> list[Check]:
    """All checks, from the boards of the command process and of the policy's process.

    Work from picture to action must take less than the policy's period in half of the steps; what p99 is, the detail
    says: a later chunk finds the rest of the one before, as `execution` describes.

    Args:
        before, policy: two records of the policy's, a second or so apart.
    """
    seconds = max(1e-9, (policy["time_ns"] - before["time_ns"]) * _NS)
    checks = [
        Check(name, hz >= least, f"{hz:.1f} Hz (at least {least:.1f})")
        for name, hz, least in _rates(robot, before, policy, seconds)
    ]
    steps = (policy["steps"] - before["steps"]) / seconds
    least = _SLOWEST * robot.policy_hz
    checks.append(Check("policy's rate", steps >= least, f"{steps:.1f} steps/s (at least {least:.1f})"))
    work = policy["stages_ms"].get("work", {"p50": float("inf"), "p99": float("inf")})
    period_ms = 1e3 / robot.policy_hz
    detail = f"p50 {work['p50']:.1f} ms, p99 {work['p99']:.1f} ms (p50 below {period_ms:.1f})"
    checks.append(Check("picture to action", work["p50"] < period_ms, detail))
    stale = commands["stale"]
    checks.append(Check("command process", not stale, "; ".join(stale) or f"{robot.command_hz:g} Hz, all is fresh"))
    return checks


def _rates(
    robot: RobotDescription, before: dict[str, Any], policy: dict[str, Any], seconds: float
) -> list[tuple[str, float, float]]:
    """Name, rate, least rate: of cameras the policy's, and of all what their timeouts ask for."""
    timeouts = robot.timeouts
    wanted = {name: max(_SLOWEST * robot.policy_hz, 2 / timeouts.camera_s) for name in robot.cameras}
    if robot.joint_states is not None:
        wanted["joint_states"] = 2 / timeouts.joint_state_s
    return [
        (name, (policy["received"].get(name, 0) - before["received"].get(name, 0)) / seconds, least)
        for name, least in wanted.items()
    ]
