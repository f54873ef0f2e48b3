"""What the command process says of itself: a record in shared memory each cycle, and on a topic now and then."""

from __future__ import annotations

import json
import mmap
import os
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.real_robot.control.cycle import Carry, CycleSettings, Inputs, Output
from embodied.real_robot.control.pacing import Lateness
from embodied.real_robot.control.seqlock import Seqlock
from embodied.real_robot.safety.chain import STAGES
from embodied.real_robot.safety.supervisors import NEVER

_CAPACITY = 16384
_LISTED = 8  # reasons in a record


def status_record(
    settings: CycleSettings, carry: Carry, inputs: Inputs, output: Output, lateness: Lateness
) -> dict[str, Any]:
    """The state of a cycle as JSON can hold it: ages in s and None for never, lateness in ms, clamps counted."""

    def age(stamp_ns: int) -> float | None:
        return None if stamp_ns == NEVER else round((inputs.now_ns - stamp_ns) * 1e-9, 4)

    ages = {name: age(camera.received_ns) for name, camera in inputs.cameras.items()}
    if inputs.joint_state is not None:
        ages["joint_states"] = age(inputs.joint_state.received_ns)
    ages["actions"] = age(carry.chunks[-1].observed_ns if carry.chunks else NEVER)
    ages["policy"] = age(inputs.heartbeat_ns)
    ages["enable"] = age(inputs.enable_ns)
    return {
        "robot": settings.robot.name,
        "cycle": lateness.count,
        "time_ns": inputs.now_ns,
        "mode": carry.mode.value,
        "reason": carry.reason[:500],
        "enabled": output.findings.enabled,
        "stale": [text[:200] for text in output.findings.stale[:_LISTED]],
        "trips": [text[:200] for text in output.findings.trips[:_LISTED]],
        "ages_s": ages,
        "clamps": dict(zip(STAGES, carry.clamps.sum(1).tolist(), strict=True)),
        "refused_chunks": carry.refused,
        "gaps": carry.gaps,
        "late_ms": round(inputs.late_ns / 1e6, 4),
        "late_max_ms": round(lateness.longest_ns / 1e6, 4),
        "command": None if output.motion is None else output.motion.position.round(6).tolist(),
    }


def slow_record(settings: CycleSettings, carry: Carry, lateness: Lateness, dropped: dict[str, int]) -> dict[str, Any]:
    """What is too dear or too long for each cycle: percentiles of lateness, clamps by axis, dropped messages."""
    p50, p99, p999 = lateness.percentiles(50, 99, 99.9)
    by_axis = {
        stage: {name: int(n) for name, n in zip(settings.robot.axis_names, row, strict=True) if n}
        for stage, row in zip(STAGES, carry.clamps, strict=True)
        if row.any()
    }
    return {
        "lateness_ms": {"p50": round(p50, 4), "p99": round(p99, 4), "p99.9": round(p999, 4)},
        "clamps_by_axis": by_axis,
        "dropped_messages": dropped,
    }


class StatusBoard:
    """A file of shared memory with the newest record; one process writes, any number look."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._lock = Seqlock(memoryview(memory), _CAPACITY)

    @classmethod
    def create(cls, path: Path) -> StatusBoard:
        """Make the file, readable by this user only. Raises UserError where it cannot be made."""
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "r+b") as handle:
                os.posix_fallocate(descriptor, 0, Seqlock.size(_CAPACITY))
                return cls(mmap.mmap(handle.fileno(), Seqlock.size(_CAPACITY)))
        except OSError as error:
            raise UserError(f"{path}: cannot be made: {error}") from error

    @classmethod
    def open(cls, path: Path) -> StatusBoard:
        """Look at a board that another process made. Raises UserError where there is none."""
        try:
            with open(path, "r+b") as handle:
                return cls(mmap.mmap(handle.fileno(), Seqlock.size(_CAPACITY)))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no status board: {error}") from error

    def write(self, record: dict[str, Any]) -> None:
        """Show a record instead of the last one."""
        self._lock.write(json.dumps(record, allow_nan=False).encode())

    def read(self) -> dict[str, Any] | None:
        """The newest record, or None before the first."""
        value = self._lock.read()
        return None if value is None else json.loads(value.data)
