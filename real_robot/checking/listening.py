"""Listening to a robot: when its messages come, how old they are by their own stamps, and what the last ones say."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.values import Message, message_type, nanoseconds
from embodied.real_robot.transports.transport import Packet, QoS, Subscription, Transport

_NS = 1e-9
_LISTEN = QoS(reliable=False, depth=32)
_PAUSE_S = 0.05


@dataclass
class TopicLog:
    """What came on a topic.

    Attributes:
        received: ns on the monotonic clock; `ages`: ns, wall clock at receipt minus the message's own stamp, of those
            that have one.
        newest: the last valid message; `changed`: whether two successive ones differed in more than their header.
        malformed: messages that could not be read, and `problem` of the last.
    """

    topic: Topic
    received: array[int] = field(default_factory=lambda: array("q"))
    ages: array[int] = field(default_factory=lambda: array("q"))
    received_bytes: int = 0
    newest: Message | None = None
    changed: bool = False
    malformed: int = 0
    problem: str = ""
    subscription: Subscription | None = None

    @property
    def rate_hz(self) -> float:
        """Mean rate from the first message to the last, 0 of fewer than two."""
        span = (self.received[-1] - self.received[0]) * _NS if len(self.received) > 1 else 0.0
        return (len(self.received) - 1) / span if span > 0 else 0.0

    @property
    def intervals_s(self) -> np.ndarray:
        """Between successive messages [n - 1]."""
        return np.diff(np.array(self.received, np.int64)) * _NS

    @property
    def ages_s(self) -> np.ndarray:
        """From a message's own stamp to its receipt [n]; negative where its clock is ahead of ours."""
        return np.array(self.ages, np.int64) * _NS


def sensor_topics(robot: RobotDescription) -> list[Topic]:
    """Joint states and cameras."""
    joints = [robot.joint_states] if robot.joint_states else []
    return [*joints, *(camera.topic for camera in robot.cameras.values())]


def listen(
    transport: Transport,
    topics: Iterable[Topic],
    *,
    seconds: float,
    pause: Callable[[float], None] = time.sleep,
    enough: Callable[[dict[str, TopicLog]], bool] = lambda logs: False,
) -> dict[str, TopicLog]:
    """Listen for some seconds, or until it is `enough`; logs by the topic's name.

    Args:
        pause: waits between two looks, for tests on another clock.
    """
    logs = {topic.name: TopicLog(topic) for topic in topics}
    for log in logs.values():
        log.subscription = transport.subscribe(log.topic.name, log.topic.type, _LISTEN, _receiver(log, transport))
    end = transport.clock.now() + round(seconds / _NS)
    while transport.clock.now() < end and not enough(logs):
        pause(_PAUSE_S)
    return logs


def _receiver(log: TopicLog, transport: Transport) -> Callable[[Packet, int], None]:
    kind = message_type(log.topic.type)
    stamped = any(field.name == "header" for field in kind.struct.fields)

    def receive(packet: Packet, stamp_ns: int) -> None:
        try:
            message = decode(packet, kind)
        except MessageError as error:
            log.malformed, log.problem = log.malformed + 1, str(error)
            return
        log.received.append(stamp_ns)
        log.received_bytes += len(packet)
        if stamped and (own := nanoseconds(message.header.stamp)):
            log.ages.append(transport.clock.wall() - (transport.clock.now() - stamp_ns) - own)
        if log.newest is not None and not log.changed:
            names = (each.name for each in kind.struct.fields if each.name != "header")
            log.changed = any(_differ(getattr(log.newest, name), getattr(message, name)) for name in names)
        log.newest = message

    return receive


def _differ(one: object, two: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(two, np.ndarray):
        return not np.array_equal(one, two)
    return bool(one != two)
