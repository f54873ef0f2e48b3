"""Process A: pictures and joint states in, chunks of actions and signs of life out. The only process with torch.

Receiving (`receiving`, `observing`), inference (`inference`) and the mailbox meet here and nowhere else.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from embodied.real_robot.control.mailbox import MAX_ACTIONS, PolicyMailbox
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_reading import MessageError
from embodied.real_robot.policy.needs import check_fits
from embodied.real_robot.policy.observing import Observation, Observer
from embodied.real_robot.policy.planner import Planner
from embodied.real_robot.policy.receiving import Receiver
from embodied.real_robot.stopping import Stopped
from embodied.real_robot.transports.transport import Transport

_logger = logging.getLogger(__name__)
_NS = 1_000_000_000
_BEAT_NS = 10_000_000
_TELL_NS = 100_000_000
_EARLY = (
    0.25  # of a period: how much too early a new picture is taken, so that a camera at the policy's rate may jitter
)
_RATE_STEPS = 20  # over which the rate is measured
BreakingOff = Callable[[], AbstractContextManager[None]]


class PolicyReport(NamedTuple):
    """How a run went: `stages_ms` p50 and p99 by stage; `unreadable`: pictures that could not be decoded."""

    steps: int
    stages_ms: dict[str, dict[str, float]]
    dropped: dict[str, int]
    unreadable: int


def run_policy(
    robot: RobotDescription,
    transport: Transport,
    mailbox: PolicyMailbox,
    inference: Planner,
    *,
    stop: Callable[[], bool],
    breaking_off: BreakingOff = nullcontext,
    held: Callable[[], bool] = lambda: False,
    board: StatusBoard | None = None,
    wait: Callable[[float], None] | None = None,
    same_names: bool = True,
) -> PolicyReport:
    """Run until `stop()`. A step begins with a new picture of each camera that the policy sees, at the policy's rate.

    Signs of life come from the same thread as inference: one that hangs is one that is dead.

    Args:
        inference: warm; a policy of this process, or one on a server (`server.remote`).
        breaking_off: around each plan; it raises `Stopped` in the middle of one that nobody waits for any more.
        held: whether the robot is held: then each observation is taken for the first of an episode, so that a robot
            that is engaged begins with an episode's first plan.
        board: where this process says how it is, ten times a second.
        wait: for at most so many seconds; by default until something comes. On a clock that moves when told, move it.
        same_names: see `needs.check_fits`.

    Raises:
        UsageError: policy and robot do not fit.
        UserError: a camera sends what the policy cannot see.
    """
    check_fits(inference.needs, robot, same_names=same_names)
    loop = _Loop(robot, transport, mailbox, inference, breaking_off=breaking_off, held=held, board=board)
    wait = wait or loop.receiver.wait
    try:
        while not stop():
            if not loop.step():
                wait(_BEAT_NS / _NS)
    except Stopped:
        _logger.info("told to end in the middle of a plan, which was broken off")
    return loop.report()


class _Loop:
    def __init__(
        self,
        robot: RobotDescription,
        transport: Transport,
        mailbox: PolicyMailbox,
        inference: Planner,
        *,
        breaking_off: BreakingOff,
        held: Callable[[], bool],
        board: StatusBoard | None,
    ) -> None:
        self.receiver = Receiver(robot, transport)
        self._observer = Observer(robot, inference.needs, self.receiver, inference.stages)
        self._mailbox, self._inference, self._board, self._clock = mailbox, inference, board, transport.clock
        self._breaking_off, self._held, self._stages = breaking_off, held, inference.stages
        self._period_ns = round(_NS / robot.policy_hz)
        self._due_ns = self._beaten_ns = self._told_ns = self._observed_ns = 0
        self._seen: dict[str, int] = {}
        self._moments: list[int] = []
        self._begun_ns = self._clock.now()
        self._unreadable = 0

    def step(self) -> bool:
        """Show life; where a step is due, plan and hand on. Whether it was."""
        now = self._beat()
        if now < self._due_ns - _EARLY * self._period_ns or not self._observer.fresh(self._seen):
            return False
        self._due_ns = max(self._due_ns, now - self._period_ns) + self._period_ns
        try:
            observation = self._observer.observe()
        except MessageError as error:
            self._unreadable += 1
            if self._unreadable == 1:
                _logger.warning("a picture could not be decoded: %s (further ones are only counted)", error)
            observation = None
            self._seen = self.receiver.numbers()
        if observation is None:
            self._stages.drop()
            return False
        self._stages.add("receive", max(0, now - observation.received_ns) / _NS)
        self._seen = observation.numbers
        self._plan(observation)
        return True

    def report(self) -> PolicyReport:
        """The run so far."""
        return PolicyReport(
            self._stages.count, self._stages.percentiles_ms(), dict(self.receiver.dropped), self._unreadable
        )

    def _plan(self, observation: Observation) -> None:
        if self._held():
            self._inference.restart()
        with self._breaking_off():
            actions = self._inference(observation.values)
        # Stamps of different sensors may step back a little; a chunk that seems older than the last would be refused.
        self._observed_ns = max(self._observed_ns, observation.observed_ns)
        with self._stages.measure("write"):
            self._mailbox.write_chunk(
                actions[:MAX_ACTIONS],
                observed_ns=self._observed_ns,
                written_ns=self._clock.now(),
                step_ns=self._period_ns,
            )
        self._stages.finish()
        self._moments = [*self._moments[-_RATE_STEPS:], self._beat()]

    def _beat(self) -> int:
        """Now; with a sign of life where one is due."""
        now = self._clock.now()
        if now - self._beaten_ns >= _BEAT_NS:
            self._beaten_ns = now
            self._mailbox.write_heartbeat(now, self.receiver.sensors())
        if self._board is not None and now - self._told_ns >= _TELL_NS:
            self._told_ns = now
            self._board.write(self._record(now))
        return now

    def _record(self, now_ns: int) -> dict[str, Any]:
        """How the process is, as JSON can hold it."""
        elapsed = self._moments[-1] - self._moments[0] if len(self._moments) > 1 else 0
        since_s = max(1, now_ns - self._begun_ns) / _NS
        return {
            "state": "running",
            "pid": os.getpid(),
            "time_ns": now_ns,
            "how": self._inference.how,
            "steps": self._stages.count,
            "hz": round((len(self._moments) - 1) * _NS / elapsed, 2) if elapsed else 0.0,
            "observed_ns": self._observed_ns,
            "stages_ms": self._stages.percentiles_ms(),
            "received": self.receiver.numbers(),
            "received_hz": {name: round(number / since_s, 2) for name, number in self.receiver.numbers().items()},
            "dropped": dict(self.receiver.dropped),
            "unreadable": self._unreadable,
        }
