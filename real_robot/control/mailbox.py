"""Memory shared by the policy's process, which writes, and the command process, which never waits for it.

Legend: H actions of a chunk, A numbers of an action, S cameras. Times are CLOCK_MONOTONIC, ns.
"""

from __future__ import annotations

import mmap
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from embodied.core.errors import UserError
from embodied.real_robot.control.seqlock import Seqlock
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.safety.supervisors import Sensor

MAX_ACTIONS = 256
_MAGIC = 0x454D424F44594D31
_HEAD = np.dtype([("magic", "<u8"), ("fingerprint", "<u8")])
_CHUNK = np.dtype([("observed_ns", "<i8"), ("written_ns", "<i8"), ("step_ns", "<i8"), ("actions", "<i8")])
_BEAT = np.dtype([("beat_ns", "<i8"), ("pid", "<i8")])
_SENSOR = np.dtype([("received_ns", "<i8"), ("delay_ns", "<i8"), ("changed_ns", "<i8")])
_PAGE = mmap.PAGESIZE


class RawChunk(NamedTuple):
    """Actions as the policy gave them, not checked: `actions` float64 [H, A], the first for `observed_ns`.

    `number` counts the chunks of a mailbox, from 1.
    """

    number: int
    observed_ns: int
    written_ns: int
    step_ns: int
    actions: np.ndarray


class Heartbeat(NamedTuple):
    """The policy's process was alive at `beat_ns` and had heard its cameras then."""

    beat_ns: int
    pid: int
    cameras: dict[str, Sensor]


class PolicyMailbox:
    """The file behind the memory, made by `create` and opened by `open` in both processes.

    The robot's axes and cameras are fingerprinted, so that processes with different descriptions do not meet.
    """

    def __init__(self, memory: mmap.mmap, robot: RobotDescription) -> None:
        self._memory = memory
        self._cameras = tuple(robot.cameras)
        self._width = len(robot.axes)
        chunk, beat = _capacities(robot)
        view = memoryview(memory)
        self._chunks = Seqlock(view[_PAGE:], chunk)
        self._beats = Seqlock(view[_PAGE + Seqlock.size(chunk) :], beat)

    @classmethod
    def create(cls, path: Path, robot: RobotDescription) -> PolicyMailbox:
        """Make the file, readable by this user only; best in `/dev/shm`. Raises UserError where it cannot be made."""
        size = _PAGE + sum(map(Seqlock.size, _capacities(robot)))
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(f"{path}: cannot be made: {error}") from error
        try:
            os.posix_fallocate(descriptor, 0, size)  # now, not as a bus error later
            memory = mmap.mmap(descriptor, size)
        except OSError as error:
            raise UserError(f"{path}: no room for {size} bytes: {error}") from error
        finally:
            os.close(descriptor)
        memory[: _HEAD.itemsize] = np.array([(_MAGIC, _fingerprint(robot))], _HEAD).tobytes()
        return cls(memory, robot)

    @classmethod
    def open(cls, path: Path, robot: RobotDescription) -> PolicyMailbox:
        """Raises UserError where the file is missing, or made for another robot."""
        size = _PAGE + sum(map(Seqlock.size, _capacities(robot)))
        try:
            with open(path, "r+b") as handle:
                if os.fstat(handle.fileno()).st_size != size:
                    raise UserError(f"{path}: not the mailbox of robot {robot.name}")
                memory = mmap.mmap(handle.fileno(), size)
        except OSError as error:
            raise UserError(f"{path}: cannot be opened: {error}") from error
        head = np.frombuffer(memory[: _HEAD.itemsize], _HEAD)[0]
        if (head["magic"], head["fingerprint"]) != (_MAGIC, _fingerprint(robot)):
            raise UserError(f"{path}: not the mailbox of robot {robot.name}: another description made it")
        return cls(memory, robot)

    def write_chunk(self, actions: np.ndarray, *, observed_ns: int, written_ns: int, step_ns: int) -> int:
        """Publish actions [H, A] and return their number; H is at most `MAX_ACTIONS`."""
        actions = np.ascontiguousarray(actions, "<f8")
        if actions.ndim != 2 or actions.shape[1] != self._width or not 1 <= len(actions) <= MAX_ACTIONS:
            raise ValueError(f"actions must be [1 .. {MAX_ACTIONS}, {self._width}], got {list(actions.shape)}")
        head = np.array([(observed_ns, written_ns, step_ns, len(actions))], _CHUNK)
        return self._chunks.write(head.tobytes() + actions.tobytes())

    def read_chunk(self) -> RawChunk | None:
        """The newest actions, or None; what a broken writer left is dropped."""
        value = self._chunks.read()
        if value is None or len(value.data) < _CHUNK.itemsize:
            return None
        head = np.frombuffer(value.data, _CHUNK, count=1)[0]
        flat = np.frombuffer(value.data, "<f8", offset=_CHUNK.itemsize)
        if len(flat) != int(head["actions"]) * self._width or not len(flat) or head["step_ns"] <= 0:
            return None
        observed_ns, written_ns, step_ns = (int(head[name]) for name in ("observed_ns", "written_ns", "step_ns"))
        return RawChunk(value.number, observed_ns, written_ns, step_ns, flat.reshape(-1, self._width))

    def write_heartbeat(self, now_ns: int, cameras: dict[str, Sensor]) -> None:
        """Say that the policy's process is alive, and when it heard the robot's cameras."""
        head = np.array([(now_ns, os.getpid())], _BEAT)
        sensors = np.array([tuple(cameras.get(name, Sensor())) for name in self._cameras], _SENSOR)
        self._beats.write(head.tobytes() + sensors.tobytes())

    def read_heartbeat(self) -> Heartbeat | None:
        """The last sign of life, or None."""
        value = self._beats.read()
        if value is None or len(value.data) != _BEAT.itemsize + len(self._cameras) * _SENSOR.itemsize:
            return None
        head = np.frombuffer(value.data, _BEAT, count=1)[0]
        rows = np.frombuffer(value.data, _SENSOR, offset=_BEAT.itemsize).tolist()
        sensors = {name: Sensor(*row) for name, row in zip(self._cameras, rows, strict=True)}
        return Heartbeat(int(head["beat_ns"]), int(head["pid"]), sensors)


def _capacities(robot: RobotDescription) -> tuple[int, int]:
    chunk = _CHUNK.itemsize + MAX_ACTIONS * len(robot.axes) * 8
    return chunk, _BEAT.itemsize + len(robot.cameras) * _SENSOR.itemsize


def _fingerprint(robot: RobotDescription) -> int:
    return zlib.crc32("\n".join([robot.name, robot.kind, *robot.axis_names, "", *robot.cameras]).encode())
