"""What goes wrong with the sensors of a simulated robot on request, for tests and demonstrations."""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from embodied.core.errors import UsageError, unknown_name
from embodied.real_robot.transports.transport import Packet, Publisher

_NS = 1_000_000_000
_MOST_WAITING = 1000  # messages that are delayed


@dataclass(frozen=True, kw_only=True)
class SensorFaults:
    """Faults that are on.

    Attributes:
        frozen_camera: cameras send their last picture again, with new stamps.
        silent_cameras, silent_joints: nothing is sent.
        joint_delay_s: joint states arrive later, with the stamps of when they were measured.
        loss: share of all sensor messages that are never sent, in [0, 1].
        teleport: added to the measured position of the first axis, in its unit.
    """

    frozen_camera: bool = False
    silent_cameras: bool = False
    silent_joints: bool = False
    joint_delay_s: float = 0.0
    loss: float = 0.0
    teleport: float = 0.0


def read_faults(content: Mapping[str, Any]) -> SensorFaults:
    """Faults by name.

    Raises:
        UsageError: an unknown one, or a value that makes no sense.
    """
    kinds = {field.name: type(field.default) for field in fields(SensorFaults)}
    for name, value in content.items():
        if name not in kinds:
            raise unknown_name("fault", str(name), kinds)
        if kinds[name] is bool and not isinstance(value, bool):
            raise UsageError(f"faults.{name} must be true or false, got {value!r}")
        if kinds[name] is float and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UsageError(f"faults.{name} must be a number, got {value!r}")
    faults = SensorFaults(**content)
    if not 0 <= faults.loss <= 1:
        raise UsageError(f"faults.loss must be in [0, 1], got {faults.loss}")
    if not 0 <= faults.joint_delay_s <= 60:
        raise UsageError(f"faults.joint_delay_s must be in [0, 60], got {faults.joint_delay_s}")
    if not math.isfinite(faults.teleport):
        raise UsageError(f"faults.teleport must be finite, got {faults.teleport}")
    return faults


class FaultyPublisher:
    """Publishes with loss and delay.

    Args:
        publisher: what sends.
        generator: decides what is lost.
    """

    def __init__(self, publisher: Publisher, generator: random.Random) -> None:
        self._publisher, self._random = publisher, generator
        self._waiting: deque[tuple[int, Packet]] = deque(maxlen=_MOST_WAITING)

    def send(self, packet: Packet, now_ns: int, *, loss: float = 0.0, delay_s: float = 0.0) -> None:
        """Send a message, or lose or keep it, and send those that were kept until now."""
        if self._random.random() >= loss:
            self._waiting.append((now_ns + round(delay_s * _NS), packet))
        while self._waiting and self._waiting[0][0] <= now_ns:
            self._publisher.publish(self._waiting.popleft()[1])
