"""How the simulated robot follows commands: as the controller of a real one, in steps of its environment.

Legend: N axes.
"""

from __future__ import annotations

import numpy as np

from embodied.real_robot.description.description import RobotDescription
from embodied.real_robot.recording.commanded_actions import CommandedActions


class CommandFollower:
    """Turns commanded positions into actions of the environment, at most one action's way in a step.

    Axes that the policy moves by displacements have a set point that follows the commands from where the robot stood,
    and keeps what a step was too short for; commands of the others, such as the gripper, are taken as they are.

    Args:
        robot: what the commands are for.
        low, high: float32 [N], bounds of the environment's actions.
    """

    def __init__(self, robot: RobotDescription, low: np.ndarray, high: np.ndarray) -> None:
        self._actions = CommandedActions(robot)
        self._low, self._high = low, high
        self._names, self._jump = robot.axis_names, robot.column("jump")
        self._set_point = self._start = robot.column("home")

    def start(self, measured: np.ndarray) -> None:
        """Stand at `measured` [N]; NaN for axes that are not measured, which stand at home."""
        self._set_point = self._start = np.where(np.isfinite(measured), measured, self._start)

    def refusal(self, command: np.ndarray) -> str | None:
        """Why a first command must not be followed, or None: it is farther from the pose than an axis' `jump`."""
        far = np.abs(command - self._start)
        bad = self._actions.relative & (far > self._jump)
        if not bad.any():
            return None
        worst = int(np.argmax(np.where(bad, far, -np.inf)))
        return f"{self._names[worst]} is {far[worst]:.3g} away from the first command (limit {self._jump[worst]:.3g})"

    def action(self, command: np.ndarray) -> np.ndarray:
        """The action float32 [N] of the step that goes towards a command [N]."""
        wanted = self._actions(self._set_point, command)
        action = np.clip(wanted, self._low, self._high).astype(np.float32)
        self._set_point = self._actions.moved(self._set_point, action.astype(np.float64))
        return action

    def hold(self) -> np.ndarray:
        """The action float32 [N] of staying where the set point is."""
        return self.action(self._set_point)
