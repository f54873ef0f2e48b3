"""A robot of MuJoCo behind the topics of its description: sensors out, commands in, episodes on request."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.protocols import STATE
from embodied.envs.task_env import TaskEnv
from embodied.real_robot.description.description import RobotDescription, Topic
from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.simulator.environment import make_environment
from embodied.real_robot.simulator.episodes import (
    ACTIVE,
    FAULTS,
    INSTRUCTION,
    RESET,
    STATUS,
    EpisodeStatus,
    bool_packet,
    read_json,
    text_packet,
)
from embodied.real_robot.simulator.faults import SensorFaults, read_faults
from embodied.real_robot.simulator.following import CommandFollower
from embodied.real_robot.simulator.sensors import SensorPublishers
from embodied.real_robot.transports.transport import COMMAND, LATCHED, Packet, Transport

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000
COMMAND_TIMEOUT_S = 0.25


class SimulatedRobot:
    """One step of the environment for each call of `step`, which is a period of the policy.

    The world stands still until the first command of an episode and after its end, while sensors go on. A first
    command far from the hand is refused, as the drivers of robots do; so is a command that is malformed. When commands
    stop coming for `command_timeout_s` the robot holds, and goes on with the next one.

    Callbacks may come on another thread; everything else, rendering too, on the one that calls `step`.

    Args:
        robot: see `robots/sim.yaml`.
        env: arguments of `TaskEnv`.
        seeds: of the episodes that no request names a seed for, over and over; the first begins at once.
        command_timeout_s: without a command the robot holds.
        faults: of the sensors, until `FAULTS` says otherwise.
        fault_seed: decides which messages are lost.

    Attributes:
        environment: what is simulated, and `observation`, all that it observes.
        status: of the episode.
        dropped: messages that were not followed, by topic.

    Raises:
        UsageError: the environment has not the axes, cameras or joints of the description.
    """

    def __init__(
        self,
        robot: RobotDescription,
        transport: Transport,
        *,
        env: Mapping[str, Any],
        seeds: Sequence[int] = (0,),
        command_timeout_s: float = COMMAND_TIMEOUT_S,
        faults: SensorFaults | None = None,
        fault_seed: int = 0,
    ) -> None:
        if not seeds:
            raise UsageError("seeds: at least one is needed")
        self.environment: TaskEnv = make_environment(robot, env)
        self.robot, self._clock = robot, transport.clock
        self._timeout_ns = round(command_timeout_s * _NS)
        spec = self.environment.spec_of_task
        self._follower = CommandFollower(robot, spec.action_low, spec.action_high)
        self._seeds = cycle(seeds)
        self._faults = faults or SensorFaults()
        self._command: tuple[np.ndarray, int] | None = None
        self._wanted: tuple[int | None, str] | None = (None, "")  # the episode that was asked for
        self.dropped: Counter[str] = Counter()
        self._listen(transport)
        self._sensors = SensorPublishers(robot, transport, random.Random(fault_seed))
        self._told = {topic: transport.advertise(topic.name, topic.type, LATCHED) for topic in (STATUS, ACTIVE)}
        instruction = transport.advertise(INSTRUCTION.name, INSTRUCTION.type, LATCHED)
        instruction.publish(text_packet(self.environment.task_description))
        self.observation: dict[str, np.ndarray] = {}
        self._again_ns = 0
        self._active = False
        self.status = EpisodeStatus(
            number=0, request="", seed=0, suite=self.environment.suite, task=self.environment.task, phase="ended"
        )

    def step(self) -> np.ndarray | None:
        """One period: begin an episode or go on, publish; gives the action float32 [N] that was executed, or None."""
        before, held = self.status, self.status.held_steps
        wanted, self._wanted = self._wanted, None
        action = None
        if wanted is not None and (not wanted[1] or wanted[1] != before.request):
            self._begin(*wanted)
        elif self.status.phase != "ended":
            action = self._follow()
        self._tell(before, active=self.status.phase == "running" and self.status.held_steps == held)
        self._sensors.publish(self.observation, self.environment.spec_of_task.state, self._faults)
        return action

    def ask(self, seed: int | None, request: str = "") -> None:
        """Begin the episode of a seed (None: the next of `seeds`) at the next step, see `episodes.RESET`."""
        self._wanted = seed, request

    def close(self) -> None:
        """Let go of the simulator; the transport is the caller's."""
        self.environment.close()

    def _listen(self, transport: Transport) -> None:
        uses = {self.robot.command: self._hear_command, RESET: self._hear_reset, FAULTS: self._hear_faults}
        self._subscriptions = [
            transport.subscribe(topic.name, topic.type, COMMAND, self._guarded(topic, use))
            for topic, use in uses.items()
        ]

    def _guarded(self, topic: Topic, use: Any) -> Any:
        def receive(packet: Packet, stamp_ns: int) -> None:
            try:
                use(packet, stamp_ns)
            except (MessageError, UsageError) as error:
                self.dropped[topic.name] += 1
                if self.dropped[topic.name] == 1:
                    _logger.warning("%s: not followed: %s (further ones are only counted)", topic.name, error)

        return receive

    def _hear_command(self, packet: Packet, stamp_ns: int) -> None:
        values = np.array(decode(packet, message_type(self.robot.command.type)).data, np.float64)
        if values.shape != (len(self.robot.axes),) or not np.isfinite(values).all():
            raise MessageError(f"expected {len(self.robot.axes)} finite numbers, got {values.tolist()[:16]}")
        self._command = values, stamp_ns

    def _hear_reset(self, packet: Packet, stamp_ns: int) -> None:
        content = read_json(packet)
        seed, request = content.get("seed"), content.get("request", "")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**31):
            raise MessageError(f"seed must be a whole number of at least 0, got {seed!r}")
        if not isinstance(request, str) or len(request) > 100:
            raise MessageError(f"request must be a short text, got {str(request)[:100]!r}")
        self.ask(seed, request)

    def _hear_faults(self, packet: Packet, stamp_ns: int) -> None:
        self._faults = read_faults(read_json(packet))

    def _begin(self, seed: int | None, request: str) -> None:
        seed = next(self._seeds) if seed is None else seed
        self.observation, _ = self.environment.reset(seed=seed)
        self._command = None
        measured = dict(zip(self.environment.spec_of_task.state, self._state(), strict=True))
        self._follower.start(
            np.array([measured.get(axis.name, np.nan) if axis.measured else np.nan for axis in self.robot.axes])
        )
        made = self.environment
        self.status = EpisodeStatus(
            number=self.status.number + 1, request=request, seed=seed, suite=made.suite, task=made.task, phase="ready"
        )

    def _state(self) -> np.ndarray:
        state = self.observation[STATE]
        newest: np.ndarray = state if state.ndim == 1 else state[-1]  # of a history the present
        return newest.astype(np.float64)

    def _follow(self) -> np.ndarray | None:
        """One step of a running episode, or the first where a command may be followed."""
        heard = self._command
        fresh = heard is not None and self._clock.now() - heard[1] <= self._timeout_ns
        if self.status.phase == "ready":
            refused = self._follower.refusal(heard[0]) if heard is not None and fresh else None
            if heard is None or not fresh or refused is not None:
                self.status = replace(self.status, refused=refused)
                return None
        action = self._follower.action(heard[0]) if heard is not None and fresh else self._follower.hold()
        self.observation, reward, terminated, truncated, info = self.environment.step(action)
        self.status = replace(
            self.status,
            phase="ended" if terminated or truncated else "running",
            steps=self.status.steps + 1,
            held_steps=self.status.held_steps + (not fresh),
            success=bool(info["success"]),
            success_once=bool(info["success_once"]),
            score=float(info["score"]),
            total_reward=self.status.total_reward + float(reward),
            refused=None,
        )
        return action

    def _tell(self, before: EpisodeStatus, *, active: bool) -> None:
        """Say how the episode stands: at each change of phase, and once a second while it runs."""
        status, now_ns = self.status, self._clock.now()
        if active != self._active:
            self._active = active
            self._told[ACTIVE].publish(bool_packet(active))
        if (status.number, status.phase, status.refused) == (before.number, before.phase, before.refused) and (
            status.phase != "running" or now_ns < self._again_ns
        ):
            return
        self._again_ns = now_ns + _NS
        self._told[STATUS].publish(status.packet())
        if status.phase != before.phase:
            _logger.info("episode %d (seed %d): %s", status.number, status.seed, status.phase)
