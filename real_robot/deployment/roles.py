"""`python -m embodied.real_robot.deployment.roles ROLE FOLDER`: the processes that the launcher starts.

The imports of each role are its own: the command process must not pay for torch, nor wait for it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.real_robot.deployment.children import COMMANDS, POLICY, RECORDER, SIMULATOR, die_with_parent, orphaned
from embodied.real_robot.deployment.session import Session
from embodied.real_robot.stopping import Stopped, stop_on_signals

_NICE = 5


def run_commands(session: Session) -> dict[str, Any]:
    """Process B. It ends at rest; where the launcher is gone it removes the session."""
    from embodied.real_robot.control.loop import run_command_loop
    from embodied.real_robot.control.mailbox import PolicyMailbox
    from embodied.real_robot.control.realtime import RealTime
    from embodied.real_robot.control.status import StatusBoard

    stop, settings = stop_on_signals(), session.settings()
    robot, transport = settings.load_robot(), settings.open_transport()
    try:
        report = run_command_loop(
            robot,
            transport,
            PolicyMailbox.open(session.mailbox, robot),
            stop=stop,
            live=session.is_live if settings.live else False,
            board=StatusBoard.open(session.command_board),
            wanted=RealTime(priority=settings.priority, cpu=settings.cpu, lock_memory=settings.lock_memory),
        )
    finally:
        transport.close()
        if orphaned():
            session.remove()
    return {**report._asdict(), "mode": report.mode.value}


def run_policy(session: Session) -> dict[str, Any]:
    """Process A: loads and warms the policy, or finds the server that has it, then runs it.

    Told to end, it breaks off what it is at, since the robot does without it by then: a plan may take longer than
    anybody would wait.
    """
    from embodied.real_robot.control.mailbox import PolicyMailbox
    from embodied.real_robot.control.status import StatusBoard
    from embodied.real_robot.deployment.policy_role import start_policy
    from embodied.real_robot.policy.process import run_policy
    from embodied.real_robot.server.options import ServerOptions
    from embodied.real_robot.server.remote import run_remote_policy

    stop, settings = stop_on_signals(), session.settings()
    board, commands = StatusBoard.open(session.policy_board), StatusBoard.open(session.command_board)
    robot = settings.load_robot()
    with stop.breaking_off():
        inference = start_policy(settings, robot, board=board) if settings.server is None else None

    def held() -> bool:
        record = commands.read()
        return record is not None and record["mode"] in ("hold", "fault")

    options: dict[str, Any] = {"held": held, "board": board, "same_names": settings.same_names}
    options |= {"stop": stop, "breaking_off": stop.breaking_off}
    transport = settings.open_transport()
    try:
        mailbox = PolicyMailbox.open(session.mailbox, robot)
        if inference is not None:
            report = run_policy(robot, transport, mailbox, inference, **options)
        else:
            server = ServerOptions.of(settings.server or {})
            report = run_remote_policy(robot, transport, mailbox, server, **options)
    finally:
        transport.close()
    return report._asdict()


def run_recording(session: Session) -> dict[str, Any]:
    """Process C. It gives way to the others, and ends early where the disk takes no more."""
    from embodied.real_robot.recording.process import run_recorder

    stop, settings = stop_on_signals(), session.settings()
    assert settings.record is not None
    os.nice(_NICE)
    transport = settings.open_transport()
    try:
        report = run_recorder(settings.load_robot(), transport, Path(settings.record), stop=stop)
    finally:
        transport.close()
    if report.failure is not None:
        raise UserError(report.failure)
    return {"path": str(report.path), "messages": sum(report.messages.values()), "lost": report.lost}


def run_simulation(session: Session) -> dict[str, Any]:
    """The simulated robot."""
    from embodied.real_robot.simulator.running import run_simulator

    stop, settings = stop_on_signals(), session.settings()
    assert settings.simulated is not None
    transport = settings.open_transport()
    try:
        report = run_simulator(
            settings.load_robot(), transport, env=settings.simulated, seeds=settings.seeds, stop=stop
        )
    finally:
        transport.close()
    return report._asdict()


_ROLES = {COMMANDS: run_commands, POLICY: run_policy, RECORDER: run_recording, SIMULATOR: run_simulation}


def main() -> int:
    """Run a role; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    role, folder = sys.argv[1:]
    try:
        die_with_parent()
        report = _ROLES[role](Session(Path(folder)))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except Stopped:
        report = {"ended": "before it was ready, as it was told to"}
    sys.stdout.write(json.dumps(report) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
