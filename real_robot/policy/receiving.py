"""What the policy's process hears: the newest picture of each camera and the newest joint state, nothing older."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from functools import partial
from typing import NamedTuple

import numpy as np

from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.values import Message, message_type, nanoseconds
from embodied.real_robot.safety.frozen_images import Watched, watch
from embodied.real_robot.safety.supervisors import Sensor
from embodied.real_robot.transports.transport import SENSOR, Packet, Transport

_logger = logging.getLogger(__name__)
_REORDERED_NS = 1_000_000_000  # older by more is a clock that was set, not a message that was overtaken


class Heard(NamedTuple):
    """A message, when it came on the monotonic clock, how old it then was by its own stamp (0: not stamped), and its
    number on its topic, from 1.
    """

    message: Message
    received_ns: int
    delay_ns: int
    number: int


class Receiver:
    """Subscribes to all cameras and the joint states. Callbacks may come on another thread.

    Attributes:
        dropped: messages that were not used, by reason.
    """

    def __init__(self, robot: RobotDescription, transport: Transport) -> None:
        self.dropped: Counter[str] = Counter()
        self._clock = transport.clock
        self._cameras: dict[str, Heard] = {}
        self._watched: dict[str, Watched] = {}
        self._joints: Heard | None = None
        self._state = robot.state
        self._stamps: dict[str, int] = {}
        self._news = threading.Condition()
        topics = {name: camera.topic for name, camera in robot.cameras.items()}
        self._subscriptions = [
            transport.subscribe(topic.name, topic.type, SENSOR, partial(self._camera, name, message_type(topic.type)))
            for name, topic in topics.items()
        ]
        if robot.joint_states is not None:
            kind = message_type(robot.joint_states.type)
            receive = partial(self._joint_state, kind)
            self._subscriptions.append(
                transport.subscribe(robot.joint_states.name, robot.joint_states.type, SENSOR, receive)
            )

    def cameras(self) -> dict[str, Heard]:
        """The newest picture of each camera that was heard."""
        return dict(self._cameras)

    def state(self) -> tuple[np.ndarray, Heard] | None:
        """`observation.state` float32 [P] of the newest joint state, in the robot's order."""
        heard = self._joints
        if heard is None:
            return None
        names = list(heard.message.name)
        values = np.asarray(heard.message.position, np.float32)
        return values[[names.index(name) for name in self._state]], heard

    def sensors(self) -> dict[str, Sensor]:
        """Stamps of the cameras, for the command process."""
        return {name: watched.sensor for name, watched in dict(self._watched).items()}

    def numbers(self) -> dict[str, int]:
        """Of the newest messages, from 1, by camera and `joint_states`."""
        heard = dict(self._cameras) | ({} if self._joints is None else {"joint_states": self._joints})
        return {name: each.number for name, each in heard.items()}

    def wait(self, timeout_s: float) -> None:
        """Until something comes, or the time is up."""
        with self._news:
            self._news.wait(timeout_s)

    def _camera(self, name: str, kind: type[Message], packet: Packet, received_ns: int) -> None:
        heard = self._heard(name, kind, packet, received_ns, self._cameras.get(name))
        if heard is None:
            return
        before = self._watched.get(name, Watched())
        picture = np.asarray(heard.message.data)
        self._watched[name] = watch(before, picture, received_ns=received_ns, delay_ns=heard.delay_ns)
        self._cameras[name] = heard
        self._tell()

    def _joint_state(self, kind: type[Message], packet: Packet, received_ns: int) -> None:
        heard = self._heard("joint_states", kind, packet, received_ns, self._joints)
        if heard is None:
            return
        names, count = tuple(heard.message.name), len(heard.message.position)
        missing = [name for name in self._state if name not in names]
        if missing or count != len(names):
            wrong = f"{', '.join(missing)} missing" if missing else f"{count} positions for {len(names)} names"
            self._drop("joint_states: names", wrong)
        elif not np.isfinite([heard.message.position[names.index(name)] for name in self._state]).all():
            self._drop("joint_states: finite", str(list(heard.message.position)))
        else:
            self._joints = heard
            self._tell()

    def _heard(
        self, name: str, kind: type[Message], packet: Packet, received_ns: int, before: Heard | None
    ) -> Heard | None:
        try:
            message = decode(packet, kind)
        except MessageError as error:
            self._drop(f"{name}: malformed", str(error))
            return None
        stamp_ns = nanoseconds(message.header.stamp)
        if stamp_ns and 0 < self._stamps.get(name, 0) - stamp_ns < _REORDERED_NS:
            self._drop(f"{name}: order", "stamped before the last")
            return None
        self._stamps[name] = stamp_ns
        delay_ns = self._clock.wall() - stamp_ns if stamp_ns else 0
        return Heard(message, received_ns, delay_ns, 1 if before is None else before.number + 1)

    def _tell(self) -> None:
        with self._news:
            self._news.notify_all()

    def _drop(self, reason: str, details: str) -> None:
        self.dropped[reason] += 1
        if self.dropped[reason] == 1:
            _logger.warning("dropped a message: %s: %s (further ones are only counted)", reason, details)
