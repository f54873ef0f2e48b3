"""Episodes of a simulated robot, over topics of their own: asked for by seed, told when they begin and end.

A real robot has no such topics. Whoever asks for an episode must have let go of the robot first, as an operator does
before moving a real one by hand: the hand is elsewhere afterwards, and commands from before would pull it back.
"""

from __future__ import annotations

import json
import logging
import threading
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from embodied.core.errors import UserError
from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.transports.transport import COMMAND, LATCHED, Packet, Transport

_logger = logging.getLogger(__name__)
Phase = Literal["ready", "running", "ended"]

# {"seed": 7, "request": "any text"}: without a seed the simulator's next; one that was served is not served again.
RESET = Topic("/sim/episode/reset", "std_msgs/msg/String")
STATUS = Topic("/sim/episode/status", "std_msgs/msg/String")  # an `EpisodeStatus` as JSON, latched
ACTIVE = Topic("/sim/episode/active", "std_msgs/msg/Bool")  # an episode runs and the robot is commanded, latched
INSTRUCTION = Topic("/task", "std_msgs/msg/String")  # what to do, latched; where the importer of recordings looks
FAULTS = Topic("/sim/faults", "std_msgs/msg/String")  # `faults.SensorFaults` as JSON
EPISODE_TOPICS = (STATUS, ACTIVE, INSTRUCTION)
MOST_TEXT = 10_000  # characters of a JSON message


@dataclass(frozen=True, kw_only=True)
class EpisodeStatus:
    """How an episode stands.

    Attributes:
        number: counts the episodes of a simulator, from 1; `request`: what asked for this one, see `RESET`.
        phase: `ready`: the world stands still until the first command; `running`; `ended`: it stands still again.
        steps: of the policy so far; `success`: done now, `success_once`: at some step; `score` in [0, 1].
        held_steps: steps in which no fresh command had come and the robot held.
        refused: why the last command was not followed, or None.
    """

    number: int
    request: str
    seed: int
    suite: str
    task: str
    phase: Phase
    steps: int = 0
    held_steps: int = 0
    success: bool = False
    success_once: bool = False
    score: float = 0.0
    total_reward: float = 0.0
    refused: str | None = None

    def packet(self) -> bytes:
        """As a message of `STATUS`."""
        return text_packet(json.dumps(asdict(self), allow_nan=False))


def is_simulated(robot: RobotDescription) -> bool:
    """Whether a robot's commands go to a simulator of this kind, by their topic."""
    return robot.command.name.startswith("/sim/")


def text_packet(text: str) -> bytes:
    """A std_msgs String."""
    return bytes(encode(message_type("std_msgs/msg/String")(data=text)))


def bool_packet(on: bool) -> bytes:
    """A std_msgs Bool."""
    return bytes(encode(message_type("std_msgs/msg/Bool")(data=on)))


def read_json(packet: Packet) -> dict[str, Any]:
    """The object in a String message; raises MessageError where it is none."""
    text = decode(packet, message_type("std_msgs/msg/String")).data
    if len(text) > MOST_TEXT:
        raise MessageError(f"a text of {len(text)} characters, more than {MOST_TEXT}")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MessageError(f"no JSON: {error}") from error
    if not isinstance(content, dict):
        raise MessageError(f"expected a JSON object, got {text[:80]}")
    return content


def read_status(packet: Packet) -> EpisodeStatus:
    """The status in a message of `STATUS`; raises MessageError where it is none."""
    content = read_json(packet)
    known = {field.name for field in fields(EpisodeStatus)}
    try:
        return EpisodeStatus(**{name: value for name, value in content.items() if name in known})
    except TypeError as error:
        raise MessageError(f"not the status of an episode: {error}") from error


class EpisodeClient:
    """Asks a simulator for episodes and hears how they go.

    `wait` sleeps while the transport's own thread delivers; on the `memory` transport, which has none, move the clock
    and look at `status`.

    Attributes:
        status: the newest, or None before the first.
    """

    def __init__(self, transport: Transport) -> None:
        self.status: EpisodeStatus | None = None
        self._changed = threading.Condition()
        self._resets = transport.advertise(RESET.name, RESET.type, COMMAND)
        self._subscription = transport.subscribe(STATUS.name, STATUS.type, LATCHED, self._hear)

    def ask(self, seed: int | None = None, *, request: str | None = None) -> str:
        """Ask for the episode of a seed (None: the simulator's next) without waiting; gives the request."""
        request = uuid.uuid4().hex if request is None else request
        content: dict[str, Any] = {"request": request} | ({} if seed is None else {"seed": seed})
        self._resets.publish(text_packet(json.dumps(content)))
        return request

    def reset(self, seed: int, *, timeout_s: float = 30.0) -> EpisodeStatus:
        """Ask for an episode until it is ready.

        Raises:
            UserError: it is not, after `timeout_s`: no simulator answers.
        """
        request, left = uuid.uuid4().hex, timeout_s
        while left > 0:
            self.ask(seed, request=request)
            status = self._until(lambda status: status.request == request, min(1.0, left))
            if status is not None:
                return status
            left -= 1.0
        raise UserError(f"no simulator began the episode of seed {seed} within {timeout_s:g} s: is one running?")

    def wait(self, *, timeout_s: float) -> EpisodeStatus | None:
        """The status once the episode has ended, or None after `timeout_s`."""
        return self._until(lambda status: status.phase == "ended", timeout_s)

    def _until(self, condition: Callable[[EpisodeStatus], bool], timeout_s: float) -> EpisodeStatus | None:
        with self._changed:
            self._changed.wait_for(lambda: self.status is not None and condition(self.status), timeout_s)
            return self.status if self.status is not None and condition(self.status) else None

    def _hear(self, packet: Packet, stamp_ns: int) -> None:
        try:
            status = read_status(packet)
        except MessageError as error:
            _logger.warning("%s: %s", STATUS.name, error)
            return
        with self._changed:
            self.status = status
            self._changed.notify_all()
