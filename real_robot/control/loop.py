"""The command process: the only one that publishes commands; it has no torch and waits for nobody."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from typing import NamedTuple

from embodied.real_robot.control.cycle import Carry, Inputs, Output, cycle, cycle_settings, initial
from embodied.real_robot.control.intake import Intake
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.pacing import Lateness, Pacer, SystemPacer, next_deadline
from embodied.real_robot.control.publishing import CommandPublisher
from embodied.real_robot.control.realtime import RealTime, real_time
from embodied.real_robot.control.status import StatusBoard, slow_record, status_record
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.safety.modes import Mode
from embodied.real_robot.safety.motion import is_resting
from embodied.real_robot.safety.supervisors import NEVER, Sensor
from embodied.real_robot.transports.transport import LATCHED, Transport

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000


class LoopReport(NamedTuple):
    """How a run of the loop went; lateness of cycles in ms; `refused`: wishes for real time that were not granted."""

    cycles: int
    mode: Mode
    reason: str
    late_p50_ms: float
    late_p99_ms: float
    late_p999_ms: float
    late_max_ms: float
    refused: tuple[str, ...]


def run_command_loop(
    robot: RobotDescription,
    transport: Transport,
    mailbox: PolicyMailbox,
    *,
    stop: Callable[[], bool],
    live: bool | Callable[[], bool] = False,
    board: StatusBoard | None = None,
    wanted: RealTime | None = None,
    pacer: Pacer | None = None,
    after_cycle: Callable[[Carry, Output], None] | None = None,
) -> LoopReport:
    """Run until `stop()` is true; then bring the robot to rest and return.

    That takes as many cycles as there are in `robot.stopping_s` at most, however late they come. Nothing is closed:
    transport and mailbox are the caller's.

    Args:
        transport: used by no other thread while this runs.
        mailbox: where the policy's process writes.
        live: whether the robot may move; else commands go out below /shadow only. A function is asked in each cycle,
            and must be quick: where it becomes false the robot is brought to rest and let go.
        board: where each cycle's record is written.
        pacer: by default the machine's clock, which must then be the transport's.
        after_cycle: told about each cycle, for tests and recorders; it must be quick.

    Raises:
        TransportError: a command could not be sent.
    """
    loop = _Loop(robot, transport, mailbox, live=bool(live), board=board)
    pacer = pacer or SystemPacer()
    period_ns = round(_NS / robot.command_hz)
    with real_time(wanted or RealTime()) as refused:
        deadline = pacer.wait(transport.clock.now())
        left: int | None = None  # cycles, since a clock runs on while this process is held up
        while True:
            now = pacer.wait(deadline)
            if left is None and stop():
                left = math.ceil(robot.stopping_s * robot.command_hz) + 1
            allowed = live() if callable(live) else live
            output = loop.step(now, deadline, live=allowed and left is None)
            if after_cycle is not None:
                after_cycle(loop.carry, output)
            if left is not None and (left == 0 or loop.at_rest()):
                break
            left = None if left is None else left - 1
            deadline = next_deadline(deadline, transport.clock.now(), period_ns)
    return loop.report(refused)


class _Loop:
    """Inputs and outputs around `cycle`."""

    def __init__(
        self,
        robot: RobotDescription,
        transport: Transport,
        mailbox: PolicyMailbox,
        *,
        live: bool,
        board: StatusBoard | None,
    ) -> None:
        self._settings = cycle_settings(robot)
        self._mailbox, self._board = mailbox, board
        self._publisher = CommandPublisher(robot, transport, live=live)
        self._status = transport.advertise(robot.status.name, robot.status.type, LATCHED)
        self._text = message_type(robot.status.type)
        self._intake = Intake(robot, transport)
        self._clock = transport.clock
        self._status_every = max(1, round(robot.command_hz / robot.status_hz))
        self._lateness = Lateness()
        self._presses = self._resets = 0
        self.carry = initial(self._settings)

    def step(self, now_ns: int, deadline_ns: int, *, live: bool) -> Output:
        """One cycle: look, decide, publish, report."""
        inputs = self._inputs(now_ns, deadline_ns, live=live)
        before = self.carry.mode
        self.carry, output = cycle(self._settings, self.carry, inputs)
        if output.motion is not None:
            self._publisher.publish(output.motion, shadow=output.shadow)
        self._lateness.add(inputs.late_ns)
        if self.carry.mode is not before:
            level = logging.ERROR if self.carry.mode is Mode.FAULT else logging.INFO
            _logger.log(level, "%s -> %s: %s", before.value, self.carry.mode.value, self.carry.reason)
        self._tell(inputs, output, told=self.carry.mode is not before)
        return output

    def at_rest(self) -> bool:
        """Whether the robot was told to stand, or never told anything."""
        chain = self.carry.chain
        if not self.carry.owns or chain is None:
            return True
        stands = not self._settings.chain.coasts or not chain.motion.position.any()
        return stands and is_resting(chain.motion)

    def report(self, refused: tuple[str, ...]) -> LoopReport:
        """The run so far."""
        lateness = self._lateness
        p50, p99, p999 = lateness.percentiles(50, 99, 99.9)
        longest = lateness.longest_ns / 1e6
        return LoopReport(lateness.count, self.carry.mode, self.carry.reason, p50, p99, p999, longest, refused)

    def _inputs(self, now_ns: int, deadline_ns: int, *, live: bool) -> Inputs:
        intake, beat, chunk = self._intake, self._mailbox.read_heartbeat(), self._mailbox.read_chunk()
        pose, presses, resets = intake.pose, intake.presses, intake.resets
        pressed, reset = presses != self._presses, resets != self._resets
        self._presses, self._resets = presses, resets
        enable, stop = intake.enable, intake.stop
        has_joints = self._settings.robot.joint_states is not None
        # The clock comes last: held up in between, this process would take what it read for stamps of the future.
        now_ns = max(now_ns, self._clock.now())
        return Inputs(
            now_ns=now_ns,
            late_ns=now_ns - deadline_ns,
            measured=None if pose is None else pose.measured,
            joint_state=(pose.sensor if pose else Sensor()) if has_joints else None,
            cameras=beat.cameras if beat else {name: Sensor() for name in self._settings.robot.cameras},
            chunk=chunk,
            heartbeat_ns=beat.beat_ns if beat else NEVER,
            enabled=enable.on,
            enable_ns=enable.received_ns,
            estop=stop.on or pressed,
            reset=reset,
            live=live,
        )

    def _tell(self, inputs: Inputs, output: Output, *, told: bool) -> None:
        due = told or self._lateness.count % self._status_every == 0
        if self._board is None and not due:
            return
        record = status_record(self._settings, self.carry, inputs, output, self._lateness)
        if self._board is not None:
            self._board.write(record)
        if due:
            record |= slow_record(self._settings, self.carry, self._lateness, dict(self._intake.dropped))
            self._status.publish(encode(self._text(data=json.dumps(record, allow_nan=False))))
