"""What the processes of a deployment share: a private folder with settings, mailbox and boards, best in memory."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.real_robot.control.mailbox import PolicyMailbox
from embodied.real_robot.control.status import StatusBoard
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import Transport

_MEMORY = Path("/dev/shm")
_SETTINGS, _LIVE = "settings.json", "live"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is deployed where; JSON-able.

    Attributes:
        robot: a name or a path, see `load_robot`.
        transport, transport_options: None: the description's.
        policy: the policy file; empty where it is on a server.
        embodiment: of a policy of several robots, the name of the one that it drives.
        server: where the policy is, if on another computer: a record of `server.remote.ServerOptions`.
        live: whether the robot may be moved at all; else its command topics are not even opened.
        device, backend, acceleration, instruction, same_names: see `policy.inference` and `policy.needs`.
        guidance: whether each plan goes on from the one before, see `policies.prefix_guidance`.
        record: the MCAP file to write, or None.
        priority, cpu, lock_memory: see `control.realtime.RealTime`.
        simulated: arguments of `TaskEnv` where a simulated robot is to be started, else None.
        seeds: of the simulator's episodes that nobody asks for.
    """

    robot: str
    policy: str
    embodiment: str | None = None
    server: dict[str, Any] | None = None
    live: bool = False
    transport: str | None = None
    transport_options: dict[str, Any] | None = None
    device: str = "cpu"
    backend: str = "torch"
    acceleration: str = "auto"
    instruction: str | None = None
    same_names: bool = True
    guidance: bool = False
    record: str | None = None
    priority: int | None = None
    cpu: int | None = None
    lock_memory: bool = False
    simulated: dict[str, Any] | None = None
    seeds: list[int] = field(default_factory=lambda: [0])

    def load_robot(self) -> RobotDescription:
        """The robot's description."""
        return load_robot(self.robot)

    def open_transport(self) -> Transport:
        """A transport of its own for a process."""
        robot = self.load_robot()
        options = robot.transport_options if self.transport_options is None else self.transport_options
        return open_transport(self.transport or robot.transport, **options)


class Session:
    """The folder, readable by this user only. The launcher makes it and removes it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mailbox, self.command_board, self.policy_board = (
            folder / name for name in ("mailbox", "commands.board", "policy.board")
        )

    @classmethod
    def create(cls, settings: Settings) -> Session:
        """Make everything that the processes open. Raises UserError where there is no room."""
        place = _MEMORY if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) else None
        session = cls(Path(tempfile.mkdtemp(prefix="embodied-", dir=place)))
        try:
            (session.folder / _SETTINGS).write_text(json.dumps(asdict(settings)), encoding="utf-8")
            PolicyMailbox.create(session.mailbox, settings.load_robot())
            for board in (session.command_board, session.policy_board):
                StatusBoard.create(board)
        except BaseException:
            session.remove()
            raise
        return session

    def settings(self) -> Settings:
        """As they were given. Raises UserError where the folder is not a session."""
        try:
            return Settings(**json.loads((self.folder / _SETTINGS).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{self.folder} is not the folder of a deployment: {error}") from error

    def is_live(self) -> bool:
        """Whether the robot may move; asked in each cycle."""
        return os.path.exists(self.folder / _LIVE)

    def set_live(self, live: bool, /) -> None:
        """Let the robot move, or no longer."""
        if live:
            (self.folder / _LIVE).touch()
        else:
            (self.folder / _LIVE).unlink(missing_ok=True)

    def log(self, role: str) -> Path:
        """Where a process's output goes."""
        return self.folder / f"{role}.log"

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
