"""Processes of a deployment: started apart from the terminal, ended in order, and never left behind."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import embodied
from embodied.core.errors import UserError
from embodied.real_robot.deployment.session import Session

POLICY, COMMANDS, RECORDER, SIMULATOR = "policy", "commands", "recorder", "simulator"
LOADING, WARMING = "loading", "planning on noise until it is warm"  # states of the policy before it runs
_PARENT = "EMBODIED_LAUNCHER"
_PR_SET_PDEATHSIG = 1
_TAIL = 4000  # characters of a log that are looked at for a message


class Child:
    """A process of a role; its output goes to the session's log of that role.

    It has a session of its own, so that Ctrl-C reaches the launcher alone, which ends its children in order.
    """

    def __init__(self, role: str, session: Session) -> None:
        self.role, self._log = role, session.log(role)
        self._waited_s: float | None = None  # for its end, in vain
        root = str(Path(embodied.__file__).resolve().parents[1])
        path = os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])
        with open(self._log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "embodied.real_robot.deployment.roles", role, str(session.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, _PARENT: str(os.getpid())},
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def ended(self) -> int | None:
        """Its exit code once it has ended, negative for a signal."""
        return self._process.poll()

    def how(self) -> str:
        """How it ended, in words, with the last thing it said."""
        code = self.ended()
        if code is None:
            return f"{self.role}: running"
        if self._waited_s is not None:
            return f"{self.role}: killed, since it had not ended {self._waited_s:.2g} s after it was told to"
        if code == -signal.SIGKILL:
            return f"{self.role}: killed by SIGKILL, by none of these processes (most often memory ran out)"
        try:
            ended = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        except ValueError:
            ended = f"killed by signal {-code}"
        return f"{self.role}: {ended}" + (f": {self.said()}" if code > 0 else "")

    def said(self) -> str:
        """Its last message: from the last `error:` on, or its last line."""
        text = self._log.read_text(encoding="utf-8", errors="replace")[-_TAIL:].strip()
        place = text.rfind("error: ")
        return text[place + len("error: ") :] if place >= 0 else text.splitlines()[-1] if text else ""

    def ask_to_end(self) -> None:
        """SIGTERM: each role ends in its own good order."""
        if self.ended() is None:
            self._process.terminate()

    def end(self, patience_s: float) -> int:
        """Wait, then SIGKILL; its exit code."""
        try:
            return self._process.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._waited_s = patience_s
            self._process.kill()
            return self._process.wait()


def die_with_parent() -> None:
    """In a child: SIGTERM comes when the launcher dies, however it does (Linux; elsewhere it must be ended by hand).

    Raises:
        UserError: the launcher is dead already.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if orphaned():
        raise UserError("the launcher has ended")


def orphaned() -> bool:
    """In a child: whether its launcher is dead."""
    return os.getppid() != int(os.environ[_PARENT])
