"""The operator of a simulated robot: holds the switch and acknowledges faults, as a person does at a real one."""

from __future__ import annotations

from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.values import message_type
from embodied.real_robot.transports.transport import COMMAND, Transport


class Operator:
    """Says on the enable topic what `enabled` is, with each `tick`; tick ten times a second or more.

    A launcher that hangs no longer ticks, and the robot comes to rest.
    """

    def __init__(self, robot: RobotDescription, transport: Transport) -> None:
        self.enabled = False
        self._switch, self._acknowledgement = message_type(robot.enable.type), message_type(robot.reset.type)
        self._enable = transport.advertise(robot.enable.name, robot.enable.type, COMMAND)
        self._reset = transport.advertise(robot.reset.name, robot.reset.type, COMMAND)

    def tick(self) -> None:
        """Say it again."""
        self._enable.publish(encode(self._switch(data=self.enabled)))

    def acknowledge(self) -> None:
        """Reset a fault; the switch must be let go."""
        self._reset.publish(encode(self._acknowledgement()))
