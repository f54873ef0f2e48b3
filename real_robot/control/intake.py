"""What the command process hears: joint states, the deadman switch, the stop and its reset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.values import Message, message_type
from embodied.real_robot.safety.supervisors import NEVER, Sensor
from embodied.real_robot.transports.transport import SENSOR, Packet, QoS, Receive, Transport

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000
Use = Callable[[Message, int], None]
_PRESSES = QoS(reliable=True, depth=32)  # a press must not be overwritten by the release that follows at once
_REORDERED_NS = _NS  # a stamp that is older by more than this is a clock that was set, not a message that was overtaken


class Pose(NamedTuple):
    """Measured positions [N], NaN for axes that are not measured, and when they came."""

    measured: np.ndarray
    sensor: Sensor


class Switch(NamedTuple):
    """What a Bool topic last said, and when."""

    on: bool
    received_ns: int


class Intake:
    """Keeps the newest of each. Callbacks may come on another thread: each replaces one attribute by a new value.

    Attributes:
        pose: None before the first valid joint state.
        presses, resets: how often the stop was pressed and the fault was acknowledged.
        dropped: messages that were not used, by reason.
    """

    def __init__(self, robot: RobotDescription, transport: Transport) -> None:
        self.pose: Pose | None = None
        self.enable = Switch(False, NEVER)
        self.stop = Switch(False, NEVER)
        self.presses = 0
        self.resets = 0
        self.dropped: Counter[str] = Counter()
        self._robot, self._clock = robot, transport.clock
        self._columns: dict[tuple[str, ...], np.ndarray] = {}
        self._stamp_ns = 0
        self._subscriptions = [
            transport.subscribe(topic.name, topic.type, qos, self._receiver(topic, use))
            for topic, qos, use in self._topics()
        ]

    def _topics(self) -> Iterator[tuple[Topic, QoS, Use]]:
        robot = self._robot
        if robot.joint_states is not None:
            yield robot.joint_states, SENSOR, self._joint_state
        yield robot.enable, SENSOR, self._enable
        yield robot.estop, _PRESSES, self._stop
        yield robot.reset, _PRESSES, self._reset

    def _receiver(self, topic: Topic, use: Use) -> Receive:
        kind = message_type(topic.type)

        def receive(packet: Packet, stamp_ns: int) -> None:
            try:
                message = decode(packet, kind)
            except MessageError as error:
                self._drop(f"{topic.name}: malformed", str(error))
                return
            use(message, stamp_ns)

        return receive

    def _drop(self, reason: str, details: str) -> None:
        self.dropped[reason] += 1
        if self.dropped[reason] == 1:
            _logger.warning("dropped a message: %s: %s (further ones are only counted)", reason, details)

    def _joint_state(self, message: Message, received_ns: int) -> None:
        names = tuple(message.name)
        if names not in self._columns:
            missing = [axis.name for axis in self._robot.axes if axis.measured and axis.name not in names]
            if missing or len(set(names)) != len(names) or len(self._columns) > 100:
                self._drop("joint states: names", f"{', '.join(missing) or 'repeated or changing'} in {names}")
                return
            self._columns[names] = np.array([names.index(a.name) if a.measured else -1 for a in self._robot.axes])
        columns = self._columns[names]
        positions = np.append(np.asarray(message.position, np.float64), np.nan)
        if len(positions) != len(names) + 1:
            self._drop("joint states: shape", f"{len(positions) - 1} positions for {len(names)} names")
            return
        measured = positions[columns]
        if not np.isfinite(measured[columns >= 0]).all():
            self._drop("joint states: finite", str(measured.tolist()))
            return
        stamp_ns = message.header.stamp.sec * _NS + message.header.stamp.nanosec
        if 0 < self._stamp_ns - stamp_ns < _REORDERED_NS:
            self._drop("joint states: order", f"stamped {self._stamp_ns - stamp_ns} ns before the last")
            return
        self._stamp_ns = stamp_ns
        delay_ns = self._clock.wall() - stamp_ns if stamp_ns else 0
        self.pose = Pose(measured, Sensor(received_ns, delay_ns, received_ns))

    def _enable(self, message: Message, received_ns: int) -> None:
        self.enable = Switch(bool(message.data), received_ns)

    def _stop(self, message: Message, received_ns: int) -> None:
        self.stop = Switch(bool(message.data), received_ns)
        self.presses += bool(message.data)

    def _reset(self, message: Message, received_ns: int) -> None:
        self.resets += 1
