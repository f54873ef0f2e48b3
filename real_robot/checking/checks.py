"""Is a robot what its description says? Findings from what was heard of it, without moving anything."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np

from embodied.core.errors import near_names
from embodied.real_robot.checking.listening import TopicLog, sensor_topics
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_reading import MessageError
from embodied.real_robot.messages.images import pixels
from embodied.real_robot.safety.workspace import WorkspaceBox

Verdict = Literal["pass", "fail", "note"]
_AHEAD_S = 0.05  # by which a stamp may be ahead of our clock, as in safety.supervisors
_LATE = 99  # percentile of intervals and ages that must keep a timeout


class Finding(NamedTuple):
    """One line: what was looked at, how it is, and what was found."""

    what: str
    verdict: Verdict
    found: str


def findings(
    robot: RobotDescription, logs: Mapping[str, TopicLog], *, listeners: int, commanders: int
) -> list[Finding]:
    """All findings.

    Args:
        logs: of `sensor_topics(robot)`, the enable and the estop topic, by name.
        listeners: how many programs take the robot's commands; `commanders`: how many send such commands now.
    """
    found = [*_heard(robot, logs)]
    if robot.joint_states is not None and logs[robot.joint_states.name].newest is not None:
        found += _joints(robot, logs[robot.joint_states.name])
    for name, camera in robot.cameras.items():
        if logs[camera.topic.name].newest is not None:
            found.append(_picture(name, logs[camera.topic.name]))
    found += _commands(robot, listeners, commanders)
    found += _operator(robot, logs)
    return found


def _heard(robot: RobotDescription, logs: Mapping[str, TopicLog]) -> Iterator[Finding]:
    """Every topic is there, often enough, and fresh by its own stamps."""
    for topic in sensor_topics(robot):
        log = logs[topic.name]
        joints = robot.joint_states is not None and topic.name == robot.joint_states.name
        limit = robot.timeouts.joint_state_s if joints else robot.timeouts.camera_s
        if log.newest is None:
            why = f"{log.malformed} malformed ones ({log.problem})" if log.malformed else "is its name and type right?"
            yield Finding(topic.name, "fail", f"no message of {topic.type}: {why}")
            continue
        count, late = len(log.received), _percentile(log.intervals_s)
        good = count > 1 and late <= limit
        yield Finding(
            f"{topic.name} rate",
            "pass" if good else "fail",
            f"{count} messages, {log.rate_hz:.1f} Hz, {late * 1e3:.0f} ms between them (p99; limit {limit * 1e3:.0f})",
        )
        if good and log.rate_hz < 0.9 * robot.policy_hz:
            yield Finding(f"{topic.name} rate", "note", f"slower than the policy, {robot.policy_hz:g} Hz")
        yield _stamps(topic.name, log, robot.timeouts.source_s)
        if log.malformed:
            yield Finding(topic.name, "fail", f"{log.malformed} malformed messages: {log.problem}")


def _stamps(name: str, log: TopicLog, limit_s: float) -> Finding:
    what = f"{name} stamps"
    if not len(log.ages):
        return Finding(what, "note", "messages are not stamped, so how old they are is not known")
    ages = log.ages_s
    text = f"{np.median(ages) * 1e3:.1f} ms old at receipt (p50), {_percentile(ages) * 1e3:.1f} (p99)"
    if math.isinf(limit_s):
        return Finding(what, "note", f"{text}; not watched: timeouts.source_s is infinite")
    worst = max(_percentile(ages), -float(ages.min()))
    good = worst <= limit_s
    ahead = "; the robot's clock is ahead of this computer's" if ages.min() < -_AHEAD_S else ""
    return Finding(what, "pass" if good else "fail", f"{text} (limit {limit_s * 1e3:.0f}){ahead}")


def _joints(robot: RobotDescription, log: TopicLog) -> Iterator[Finding]:
    """Names, order and pose."""
    message = log.newest
    assert message is not None and robot.joint_states is not None
    names, positions = list(message.name), np.asarray(message.position, np.float64)
    wanted = [axis.name for axis in robot.axes if axis.measured]
    wanted += [name for name in robot.state if name not in wanted]
    missing = [name for name in wanted if name not in names]
    what = "joint names"
    if missing or len(set(names)) != len(names) or len(positions) != len(names):
        near = near_names(missing[0], names) if missing else []
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        text = f"{', '.join(missing)} missing in {', '.join(names)}{hint}" if missing else (
            f"{len(positions)} positions for {len(names)} names, {len(set(names))} of them different"
        )  # fmt: skip
        yield Finding(what, "fail", text)
        return
    order = [name for name in names if name in wanted]
    yield Finding(what, "pass", ", ".join(wanted) + ("" if order == wanted else " (the robot has another order)"))
    pose = np.array([positions[names.index(axis.name)] if axis.measured else np.nan for axis in robot.axes])
    yield from _pose(robot, pose)


def _pose(robot: RobotDescription, pose: np.ndarray) -> Iterator[Finding]:
    measured = robot.column("measured").astype(bool)
    low, high = robot.column("low"), robot.column("high")
    shown = ", ".join(
        f"{name} {value:.3f}" for name, value in zip(robot.axis_names, pose, strict=True) if value == value
    )
    if not np.isfinite(pose[measured]).all():
        yield Finding("pose", "fail", f"not finite: {shown}")
        return
    outside = [
        f"{name} {value:.3f} not in {a:g} .. {b:g}"
        for name, value, a, b in zip(robot.axis_names, pose, low, high, strict=True)
        if not np.isnan(value) and not a <= value <= b
    ]
    yield Finding("pose in limits", "fail" if outside else "pass", "; ".join(outside) or shown)
    if robot.workspace is not None:
        box = WorkspaceBox(robot.workspace, robot.axis_names)
        slack = box.slack(np.where(np.isnan(pose), robot.column("home"), pose))
        yield Finding("tool in workspace", "pass" if slack >= 0 else "fail", f"{slack:.3f} m from the nearest wall")


def _picture(name: str, log: TopicLog) -> Finding:
    what = f"camera {name}"
    assert log.newest is not None
    try:
        frame = pixels(log.newest)
    except MessageError as error:
        return Finding(what, "fail", f"a picture that cannot be read: {error}")
    size = f"{frame.shape[1]} x {frame.shape[0]}, {frame.dtype}"
    if frame.ndim != 3 or frame.dtype != np.uint8:
        return Finding(what, "fail", f"{size}: no colour picture")
    if not log.changed and len(log.received) > 1:
        return Finding(what, "note", f"{size}; all pictures were the same: is it frozen, or does nothing move?")
    return Finding(what, "pass", size)


def _commands(robot: RobotDescription, listeners: int, commanders: int) -> Iterator[Finding]:
    what = robot.command.name
    if listeners:
        yield Finding(what, "pass", f"{listeners} listen for commands")
    else:
        yield Finding(what, "fail", f"nobody listens for {robot.command.type} there")
    if commanders:
        yield Finding(what, "fail", f"{commanders} other programs send commands: end them first")


def _operator(robot: RobotDescription, logs: Mapping[str, TopicLog]) -> Iterator[Finding]:
    """The stop and the deadman switch, which an operator may start later."""
    pressed = logs[robot.estop.name].newest
    if pressed is None:
        yield Finding(robot.estop.name, "note", "not heard")
    elif pressed.data:
        yield Finding(robot.estop.name, "fail", "the stop is pressed")
    else:
        yield Finding(robot.estop.name, "pass", "released")
    log = logs[robot.enable.name]
    if log.newest is None:
        yield Finding(robot.enable.name, "note", "not heard: without it nothing moves")
    else:
        late = _percentile(log.intervals_s)
        good = late <= robot.timeouts.enable_s
        limit = robot.timeouts.enable_s * 1e3
        yield Finding(
            robot.enable.name, "pass" if good else "fail", f"{late * 1e3:.0f} ms between (p99; limit {limit:.0f})"
        )


def _percentile(values: np.ndarray) -> float:
    return float(np.percentile(values, _LATE)) if len(values) else 0.0
