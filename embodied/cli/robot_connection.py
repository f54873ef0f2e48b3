"""What the commands of `embodied robot` share: the description, the transport, and how long to go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig

from embodied.cli.data import format_options
from embodied.core.errors import UsageError
from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.description.reading import load_robot
from embodied.real_robot.transports.opening import open_transport
from embodied.real_robot.transports.transport import Transport


def robot_of(config: DictConfig) -> RobotDescription:
    """The robot in the setting of that name.

    Raises:
        UsageError: it is not set, unknown, or badly described.
    """
    if config.robot is None:
        raise UsageError("which robot? robot=sim, robot=ros2_arm, robot=ros2_mobile or robot=path/to/description.yaml")
    return load_robot(str(config.robot))


@contextmanager
def connected(config: DictConfig, robot: RobotDescription) -> Iterator[Transport]:
    """The transport of a robot, with the settings' own name and options in place of the description's.

    Raises:
        UsageError: an unknown transport or option.
    """
    chosen = {} if config.transport not in (None, robot.transport) else dict(robot.transport_options)
    options: dict[str, Any] = {**chosen, **format_options(config)}
    transport = open_transport(str(config.transport or robot.transport), **options)
    try:
        yield transport
    finally:
        transport.close()


def seconds_of(config: DictConfig, name: str = "seconds") -> float:
    """A duration in seconds; null is without end.

    Raises:
        UsageError: it is not positive.
    """
    value = config[name]
    if value is None:
        return float("inf")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e7:
        raise UsageError(f"{name} must be a positive number of seconds, got {value!r}")
    return float(value)
