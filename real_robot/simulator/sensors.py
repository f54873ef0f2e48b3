"""What a simulated robot measures, as messages with the stamps of when it was measured."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import numpy as np

from embodied.core.protocols import STATE
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.images import IMAGE
from embodied.real_robot.messages.values import header_message, message_type
from embodied.real_robot.simulator.faults import FaultyPublisher, SensorFaults
from embodied.real_robot.transports.transport import SENSOR, Transport


class SensorPublishers:
    """Publishes joint states and camera images; the description must have joint states.

    Args:
        generator: decides which messages are lost.
    """

    def __init__(self, robot: RobotDescription, transport: Transport, generator: random.Random) -> None:
        assert robot.joint_states is not None, robot.name
        self._robot, self._clock = robot, transport.clock
        topics = [robot.joint_states, *(camera.topic for camera in robot.cameras.values())]
        self._publishers = {
            topic: FaultyPublisher(transport.advertise(topic.name, topic.type, SENSOR), generator) for topic in topics
        }
        self._joint_state, self._image = message_type(robot.joint_states.type), message_type(IMAGE)
        self._pictures: dict[str, np.ndarray] = {}

    def publish(self, observation: Mapping[str, np.ndarray], names: Sequence[str], faults: SensorFaults) -> None:
        """Send what an observation holds; `names` of the elements of its state."""
        stamp_ns, now_ns = self._clock.wall(), self._clock.now()
        assert self._robot.joint_states is not None
        if not faults.silent_joints:
            state = _newest(observation[STATE], 1).astype(np.float64)
            if faults.teleport:
                state[names.index(self._robot.state[0])] += faults.teleport
            message = self._joint_state(header=header_message(stamp_ns), name=list(names), position=state)
            self._publishers[self._robot.joint_states].send(
                encode(message), now_ns, loss=faults.loss, delay_s=faults.joint_delay_s
            )
        if faults.silent_cameras:
            return
        for name, camera in self._robot.cameras.items():
            if not faults.frozen_camera or name not in self._pictures:
                self._pictures[name] = np.ascontiguousarray(_newest(observation[camera.input], 3))
            packet = self._encoded(name, self._pictures[name], stamp_ns)
            self._publishers[camera.topic].send(packet, now_ns, loss=faults.loss)

    def _encoded(self, name: str, picture: np.ndarray, stamp_ns: int) -> bytes:
        height, width, _ = picture.shape
        message = self._image(
            header=header_message(stamp_ns, name), height=height, width=width, encoding="rgb8", step=3 * width,
            data=picture.reshape(-1),
        )  # fmt: skip
        return bytes(encode(message))


def _newest(values: np.ndarray, dimensions: int) -> np.ndarray:
    """The present one of a history, if there is one."""
    return values if values.ndim == dimensions else values[-1]
