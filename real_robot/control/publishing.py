"""Commands as messages: the only place that publishes to a robot's command topics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import Message, message_type
from embodied.real_robot.safety.motion import Motion
from embodied.real_robot.safety.stopping import path
from embodied.real_robot.transports.transport import COMMAND, Publisher, Transport

SHADOW = "/shadow"
_TAIL_POINTS = 16
_NS = 1_000_000_000

Build = Callable[[Motion], Message]


class CommandPublisher:
    """Publishes to the robot's topics, or below `/shadow` only.

    Args:
        live: whether the robot's own topics are opened at all.
    """

    def __init__(self, robot: RobotDescription, transport: Transport, *, live: bool) -> None:
        outputs = [*_outputs(robot)]
        self._shadow = [(_open(transport, topic, SHADOW), build) for topic, build in outputs]
        self._live = [(_open(transport, topic, ""), build) for topic, build in outputs] if live else []

    def publish(self, motion: Motion, *, shadow: bool) -> None:
        """Send a command. Raises TransportError where it cannot be sent."""
        for publisher, build in self._shadow if shadow else self._live:
            publisher.publish(encode(build(motion)))


def _open(transport: Transport, topic: Topic, prefix: str) -> Publisher:
    return transport.advertise(prefix + topic.name, topic.type, COMMAND)


def _outputs(robot: RobotDescription) -> list[tuple[Topic, Build]]:
    """Topics and how their messages are made: the gripper may have one of its own."""
    everything = np.arange(len(robot.axes))
    index = robot.gripper_index
    if robot.gripper is None or robot.gripper.topic is None or index is None:
        return [(robot.command, _builder(robot, robot.command, everything))]
    own = robot.gripper.topic
    arm, hand = everything[everything != index], everything[[index]]
    return [(robot.command, _builder(robot, robot.command, arm)), (own, _builder(robot, own, hand))]


def _builder(robot: RobotDescription, topic: Topic, axes: np.ndarray) -> Build:
    names = [robot.axis_names[i] for i in axes]
    kind = message_type(topic.type)
    if topic.type.endswith("/JointTrajectory"):
        period_s, tail = 1 / robot.command_hz, robot.brake_tail
        return lambda motion: _trajectory(kind, motion, axes, names, period_s=period_s, tail=tail)
    if topic.type.endswith("/Float64MultiArray"):
        return lambda motion: kind(data=motion.position[axes])
    return lambda motion: _twist(kind, names, motion.position)


def _trajectory(
    kind: type[Message], motion: Motion, axes: np.ndarray, names: list[str], *, period_s: float, tail: bool
) -> Message:
    """The next point, to be reached in one period, and with `tail` the way to rest, should nothing follow.

    The header's stamp is zero: the trajectory begins when it arrives, as joint_trajectory_controller has it.
    """
    point = message_type("trajectory_msgs/msg/JointTrajectoryPoint")
    duration = message_type("builtin_interfaces/msg/Duration")

    def at(periods: int, position: np.ndarray, velocity: np.ndarray) -> Message:
        after = round(periods * period_s * _NS)
        start = duration(sec=after // _NS, nanosec=after % _NS)
        return point(positions=position[axes], velocities=velocity[axes], time_from_start=start)

    points = [at(1, motion.position, motion.velocity)]
    if tail and (motion.velocity.any() or motion.acceleration.any()):
        way, speed = path(motion.stop, motion.position, motion.velocity, motion.acceleration, period_s=period_s)
        shown = np.unique(np.linspace(0, len(way) - 1, _TAIL_POINTS).round().astype(int))
        speed[-1] = 0.0  # but for rounding it is
        points += [at(2 + int(k), way[k], speed[k]) for k in shown]
    return kind(joint_names=names, points=points)


def _twist(kind: type[Message], names: list[str], velocity: np.ndarray) -> Message:
    message = kind()
    twist = message.twist if kind.struct.name.endswith("/TwistStamped") else message
    for name, value in zip(names, velocity, strict=True):
        part, _, axis = name.partition(".")
        setattr(getattr(twist, part), axis, float(value))
    return message
