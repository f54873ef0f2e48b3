"""Process C of a deployment: everything that goes to and from a robot into one MCAP file, and nothing else."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from embodied.core.errors import UserError
from embodied.real_robot.control.publishing import SHADOW
from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.recording.recorder import Recorder
from embodied.real_robot.recording.topics import TopicRecorder
from embodied.real_robot.simulator.episodes import EPISODE_TOPICS, RESET
from embodied.real_robot.transports.transport import LATCHED, QoS, Transport

_logger = logging.getLogger(__name__)
# Best effort hears every writer, and a recorder that does not keep up never holds back the process that commands.
_EVERYTHING = QoS(reliable=False, depth=64)
_PAUSE_S = 0.05


@dataclass(frozen=True, kw_only=True)
class RecorderReport:
    """What was recorded.

    Attributes:
        path: of the file; where `failure` says why it ended early, it may be `<path>.part`, see `Recorder`.
        messages: by topic; `silent`: topics without any.
        lost: messages that came and were not written.
    """

    path: Path
    seconds: float
    messages: Mapping[str, int]
    written_bytes: int
    lost: int
    failure: str | None

    @property
    def silent(self) -> list[str]:
        return [topic for topic, count in self.messages.items() if not count]


def commands_of(robot: RobotDescription) -> list[Topic]:
    """The topics on which the robot is moved."""
    own = robot.gripper.topic if robot.gripper else None
    return [robot.command, *([own] if own else [])]


def recorded_topics(robot: RobotDescription) -> dict[str, tuple[str, QoS]]:
    """All topics of a robot by name, with type and QoS: sensors, commands and their shadow, safety, episodes."""
    sensors = [camera.topic for camera in robot.cameras.values()]
    if robot.joint_states is not None:
        sensors.append(robot.joint_states)
    commands = commands_of(robot)
    shadows = [Topic(SHADOW + topic.name, topic.type) for topic in commands]
    safety = [robot.status, robot.enable, robot.estop, robot.reset]
    topics = {topic.name: (topic.type, _EVERYTHING) for topic in [*sensors, *commands, *shadows, *safety, RESET]}
    return topics | {topic.name: (topic.type, LATCHED) for topic in EPISODE_TOPICS}


def run_recorder(
    robot: RobotDescription,
    transport: Transport,
    path: str | Path,
    *,
    stop: Callable[[], bool],
    compression: str = "lz4",
    pause: Callable[[float], None] = time.sleep,
) -> RecorderReport:
    """Record until `stop()` is true or the disk takes no more; the robot does not notice either.

    Args:
        transport: is the caller's to close.
        path: of the MCAP file, which must not exist.
        compression: see `Recorder`.
        pause: waits between two looks at `stop`, for tests on another clock.

    Raises:
        UserError: the file cannot be made.
    """
    began, recorder = time.monotonic(), Recorder(path, compression=compression)
    topics = TopicRecorder(transport, recorded_topics(robot), recorder)
    while not stop() and topics.failure is None:
        pause(_PAUSE_S)
    try:
        topics.close()
    except UserError as error:  # it was logged when it happened; what was recorded before is told all the same
        _logger.debug("closing: %s", error)
    return RecorderReport(
        path=recorder.path,
        seconds=time.monotonic() - began,
        messages=recorder.counts,
        written_bytes=recorder.written_bytes,
        lost=topics.lost,
        failure=None if topics.failure is None else str(topics.failure),
    )
