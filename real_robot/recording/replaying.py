"""Actions that were recorded, once more: into the mailbox of a command process, as a policy's would come."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from embodied.core.errors import UsageError
from embodied.real_robot.control.cycle import Carry, Output, cycle_settings, initial
from embodied.real_robot.control.loop import LoopReport, run_command_loop
from embodied.real_robot.control.mailbox import MAX_ACTIONS, PolicyMailbox
from embodied.real_robot.control.pacing import Pacer
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.safety.chain import STAGES
from embodied.real_robot.safety.modes import Mode
from embodied.real_robot.safety.supervisors import Sensor
from embodied.real_robot.transports.transport import Transport

_NS = 1_000_000_000
_WAITING = 4  # steps that the first target is told for before it is due, so that there is always one
_AHEAD_S = 1.0  # of actions in a chunk, so that a chunk that comes late changes nothing


class ActionPlayer:
    """Writes actions at the policy's rate, from the first on as soon as the robot is engaged, or shadowed.

    It stands for cameras too, which a replay does not look at: to the command process they are always fresh. Whoever
    replays has seen to it that the scene is as it was.

    Args:
        actions: float [T, N], as a policy of the robot gives them.
        engaged: modes in which actions are executed; leaving them ends the replay, which never jumps ahead.
    """

    def __init__(
        self, robot: RobotDescription, mailbox: PolicyMailbox, actions: np.ndarray, *, engaged: tuple[Mode, ...]
    ) -> None:
        if actions.ndim != 2 or actions.shape[1] != len(robot.axes) or not len(actions):
            raise UsageError(
                f"actions must be [T, {len(robot.axes)}] for robot {robot.name}, got {list(actions.shape)}"
            )
        self._robot, self._mailbox, self._actions = robot, mailbox, np.asarray(actions, np.float64)
        self._step_ns = round(_NS / robot.policy_hz)
        self._most = min(MAX_ACTIONS, max(1, round(_AHEAD_S * robot.policy_hz)))
        self._engaged = engaged
        self._begun_ns: int | None = None
        self._written_ns = 0
        self.done, self.interrupted = 0, False

    @property
    def ended(self) -> bool:
        """Whether the last action has had its time, or the robot was let go before that (`interrupted`)."""
        return self.interrupted or self.done >= len(self._actions)

    def tick(self, now_ns: int, mode: Mode) -> None:
        """Show life, and write actions where it is time: in each cycle of the command process."""
        sensors = {name: Sensor(now_ns, 0, now_ns) for name in self._robot.cameras}
        self._mailbox.write_heartbeat(now_ns, sensors)
        if self._begun_ns is None and mode in self._engaged and self._written_ns:
            self._begun_ns, self._written_ns = now_ns, 0
        if self._begun_ns is not None and mode not in self._engaged:
            self.interrupted = not self.ended
        if now_ns - self._written_ns < self._step_ns:
            return
        self._written_ns = now_ns
        self.done = 0 if self._begun_ns is None else round((now_ns - self._begun_ns) / self._step_ns)
        ahead = self._actions[self.done : self.done + self._most]
        if self._begun_ns is None:
            ahead = np.repeat(ahead[:1], _WAITING, axis=0)  # the first target alone
        if len(ahead):
            self._mailbox.write_chunk(ahead, observed_ns=now_ns, written_ns=now_ns, step_ns=self._step_ns)


class Replayed(NamedTuple):
    """How a replay went.

    Attributes:
        done: actions that had their time.
        mode, reason: of the last cycle before it was stopped.
        clamps: how often each stage of the safety chain has limited an axis.
    """

    done: int
    mode: Mode
    reason: str
    clamps: dict[str, int]
    loop: LoopReport


def replay(
    robot: RobotDescription,
    transport: Transport,
    mailbox: PolicyMailbox,
    actions: np.ndarray,
    *,
    live: bool = False,
    stop: Callable[[], bool] = lambda: False,
    each_cycle: Callable[[int, Mode], None] = lambda now_ns, mode: None,
    pacer: Pacer | None = None,
) -> Replayed:
    """Play actions [T, N] through the safety chain, never past it.

    Args:
        live: the robot moves, once the operator's switch is held; else the commands go below /shadow only.
        stop: ends it earlier.
        each_cycle: told the time and the mode, for whoever holds a switch in the same program; it must be quick.
        pacer: see `run_command_loop`.

    Raises:
        UsageError: the actions are not of this robot.
    """
    player = ActionPlayer(robot, mailbox, actions, engaged=(Mode.ACTIVE,) if live else (Mode.SHADOW,))
    player.tick(transport.clock.now(), Mode.HOLD)
    stopping, last = False, initial(cycle_settings(robot))

    def stopped() -> bool:
        nonlocal stopping
        stopping = stopping or player.ended or stop()
        return stopping

    def after_cycle(carry: Carry, output: Output) -> None:
        nonlocal last
        if not stopping:
            last = carry
        stale = carry.mode is Mode.SHADOW and bool(output.findings.stale)  # then the shadow stands too
        player.tick(carry.last_ns, Mode.HOLD if stale else carry.mode)
        each_cycle(carry.last_ns, carry.mode)

    report = run_command_loop(robot, transport, mailbox, stop=stopped, live=live, pacer=pacer, after_cycle=after_cycle)
    clamps = dict(zip(STAGES, last.clamps.sum(1).tolist(), strict=True))
    return Replayed(min(player.done, len(actions)), last.mode, last.reason, clamps, report)
