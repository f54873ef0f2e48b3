"""Starts the processes of a deployment, tests them, lets the robot go, watches, and ends everything in order."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from embodied.core.errors import UserError
from embodied.real_robot.control.cycle import rest_bound_s
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.deployment.children import COMMANDS, LOADING, POLICY, RECORDER, SIMULATOR, Child
from embodied.real_robot.deployment.episodes import EpisodeOutcome, Episodes, Record
from embodied.real_robot.deployment.operator import Operator
from embodied.real_robot.deployment.self_test import Check, self_test
from embodied.real_robot.deployment.session import Session, Settings
from embodied.real_robot.simulator.episodes import EpisodeClient
from embodied.real_robot.transports.transport import Transport

_logger = logging.getLogger(__name__)
_TICK_S = 0.04  # the simulated operator's switch speaks as often
_SHOWN_S = 0.25
_WARM_STEPS = 10  # of the policy on real pictures before it is tested
_TEST_S, _TEST_STEPS = 1.5, 8  # and so many of the policy's periods, of which a rate can be told
_LONGEST = 500  # steps of a simulated episode, where nothing says
# Beyond what the robot needs to come to rest. Leaving torch alone takes a starved process seconds.
_END_S = {COMMANDS: 3.0, POLICY: 30.0, RECORDER: 60.0, SIMULATOR: 10.0}


class Look(Protocol):
    """What shows a deployment to a person."""

    def show(self, phase: str, commands: Record, policy: Record, notes: Sequence[str]) -> None:
        """The newest records of both processes, and what has happened so far."""

    def tested(self, checks: Sequence[Check]) -> None:
        """What the self-test found."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How to run.

    Attributes:
        restart: start the policy's process again when it dies; faults must be acknowledged by the operator.
        seconds: end after so long, not counting the start; None: when told.
        seeds: of evaluation episodes on a simulated robot; None: none.
        operate: play the operator, who holds the switch: for simulated robots only.
        start_s: how long everything may take to start.
    """

    restart: bool = False
    seconds: float | None = None
    seeds: tuple[int, ...] | None = None
    operate: bool = False
    start_s: float = 180.0


@dataclass
class DeployReport:
    """What became of it: `failure` is empty where all ended as asked. Records are the last ones."""

    checks: list[Check] = field(default_factory=list)
    outcomes: list[EpisodeOutcome] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failure: str = ""
    commands: Record = None
    policy: Record = None


def deploy(settings: Settings, options: Options, *, look: Look, stop: Callable[[], bool]) -> DeployReport:
    """Run until `stop()`, the time is up, the episodes are done or something ends that must not.

    In any case the robot is brought to rest first, then all processes end.

    Raises:
        UserError: a process could not start, or the self-test failed; nothing has moved then.
    """
    session = Session.create(settings)
    try:
        launcher = _Launcher(session, settings, options, look, stop)
        try:
            launcher.run()
        finally:
            launcher.end()
        return launcher.report
    finally:
        session.remove()


class _Launcher:
    def __init__(
        self, session: Session, settings: Settings, options: Options, look: Look, stop: Callable[[], bool]
    ) -> None:
        self._session, self._settings, self._options, self._look, self._stop = session, settings, options, look, stop
        self._robot = settings.load_robot()
        self._commands, self._policy = StatusBoard.open(session.command_board), StatusBoard.open(session.policy_board)
        self._children: dict[str, Child] = {}
        self._transport: Transport | None = None
        self._operator: Operator | None = None
        self._episodes: Episodes | None = None
        self._shown = 0.0
        self.report = DeployReport()

    def run(self) -> None:
        """From start to the last thing asked for."""
        if self._options.operate or self._options.seeds is not None:
            self._transport = self._settings.open_transport()
            self._operator = Operator(self._robot, self._transport)
        wanted = {SIMULATOR: self._settings.simulated, RECORDER: self._settings.record, POLICY: True, COMMANDS: True}
        for role in (role for role, there in wanted.items() if there):
            self._children[role] = Child(role, self._session)
        if self._started() and self._tested():
            self._engage()
            self._supervise()

    def end(self) -> None:
        """The robot to rest, then everything down."""
        self._session.set_live(False)
        for role in (COMMANDS, POLICY, RECORDER, SIMULATOR):
            child = self._children.get(role)
            if child is None:
                continue
            already = child.ended() is not None
            child.ask_to_end()
            code = child.end(_END_S[role] + self._robot.stopping_s)
            if code not in (0, -signal.SIGTERM) and not already:  # SIGTERM ends what has not begun yet
                how = f"{child.how()} (while ending)"
                self._note(how)
                self.report.failure = self.report.failure or how
        self.report.commands = self.report.commands or self._commands.read()
        self.report.policy = self._policy.read()
        if self._transport is not None:
            self._transport.close()

    def _started(self) -> bool:
        """Wait until the policy plans from what it sees; False when told to stop."""
        end = time.monotonic() + self._options.start_s
        while not self._stop():
            self._require_all()
            policy, commands = self._policy.read(), self._commands.read()
            if commands is not None and policy is not None and policy.get("steps", 0) >= _WARM_STEPS:
                return True
            if time.monotonic() > end:
                raise UserError(f"not ready after {self._options.start_s:g} s: {self._missing(policy, commands)}")
            self._tick("starting")
        return False

    def _missing(self, policy: Record, commands: Record) -> str:
        if policy is None or policy.get("state") != "running":
            return f"the policy is still {LOADING if policy is None else policy['state']}"
        topics = {name: camera.topic.name for name, camera in self._robot.cameras.items()}
        if self._robot.joint_states is not None:
            topics["joint_states"] = self._robot.joint_states.name
        silent = [topic for name, topic in topics.items() if name not in policy["received"]]
        heard = "; ".join(f"{reason} ({count})" for reason, count in policy["dropped"].items())
        said = f"nothing was heard on {', '.join(silent)}" if silent else "the policy makes no steps"
        return f"{said}{'; dropped: ' + heard if heard else ''} (embodied robot check robot={self._settings.robot})"

    def _tested(self) -> bool:
        before = self._policy.read()
        end = time.monotonic() + max(_TEST_S, _TEST_STEPS / self._robot.policy_hz)
        while time.monotonic() < end:
            if self._stop():
                return False
            self._require_all()
            self._tick("self-test")
        commands, policy = self._commands.read(), self._policy.read()
        assert commands is not None and policy is not None and before is not None
        self.report.checks = self_test(self._robot, commands, before, policy)
        self._look.tested(self.report.checks)
        failed = [f"{check.name}: {check.detail}" for check in self.report.checks if not check.passed]
        if failed:
            raise UserError("\n  ".join(["the self-test failed, nothing was moved:", *failed]))
        return True

    def _engage(self) -> None:
        self._session.set_live(self._settings.live)
        seeds = self._options.seeds
        if seeds is not None and self._operator is not None and self._transport is not None:
            client = EpisodeClient(self._transport)
            steps = (self._settings.simulated or {}).get("horizon") or _LONGEST
            episode_s = 2 * steps / self._robot.policy_hz + 10
            self._episodes = Episodes(client, self._operator, self._session.set_live, seeds, episode_s=episode_s)

    def _supervise(self) -> None:
        end = time.monotonic() + (self._options.seconds or float("inf"))
        while not self._stop() and time.monotonic() < end and not self.report.failure:
            self._watch_children()
            if self._episodes is not None:
                self._episodes.tick(time.monotonic_ns(), self._commands.read(), self._policy.read())
                self.report.outcomes = self._episodes.outcomes
                if self._episodes.done:
                    return
            elif self._operator is not None:
                self._operate(self._operator)
            self._tick("running" if self._settings.live else "shadow")

    def _operate(self, operator: Operator) -> None:
        """A person at the switch: lets go before engaging and after a fault, acknowledges, holds it again."""
        commands = self._commands.read()
        mode = None if commands is None else commands["mode"]
        operator.enabled = mode in ("hold", "active")
        if mode == "fault" and POLICY in self._children and self._children[POLICY].ended() is None:
            operator.acknowledge()

    def _watch_children(self) -> None:
        for role, child in list(self._children.items()):
            if child.ended() is None:
                continue
            if role == POLICY and self._options.restart:
                self._note(f"{child.how()}; starting it again")
                self._children[role] = Child(role, self._session)
            elif role == RECORDER:
                self._note(f"{child.how()}; the robot goes on without a recording")
                del self._children[role]
            else:
                self.report.failure = child.how()
                self._note(child.how())
                if role == POLICY:
                    self._await_rest()

    def _await_rest(self) -> None:
        """Let the command process find out by itself that the policy is dead, as it must be able to."""
        end = time.monotonic() + rest_bound_s(self._robot) + 1
        while time.monotonic() < end:
            record = self._commands.read()
            if self._children[COMMANDS].ended() is not None or record is None or record["mode"] != "active":
                break
            self._tick("policy is dead")
        self.report.commands = self._commands.read()

    def _require_all(self) -> None:
        """While starting, whatever ends is an error, and what it said says why."""
        for child in self._children.values():
            if child.ended() is not None:
                raise UserError(child.said() or child.how())

    def _tick(self, phase: str) -> None:
        if self._operator is not None:
            self._operator.tick()
        now = time.monotonic()
        if now - self._shown >= _SHOWN_S:
            self._shown = now
            stage = phase if self._episodes is None else self._episodes.stage
            self._look.show(stage, self._commands.read(), self._policy.read(), self.report.notes)
        time.sleep(_TICK_S)

    def _note(self, text: str) -> None:
        self.report.notes.append(text)
        _logger.info("%s", text)
