"""From commands that went to a robot back to the actions of a policy: the inverse of `control.chunks.ActionScale`.

Legend: N axes.
"""

from __future__ import annotations

import numpy as np

from embodied.real_robot.control.chunks import action_scale
from embodied.real_robot.description.description import RobotDescription


class CommandedActions:
    """Reads actions out of successive commands of a robot.

    An axis that is commanded by displacement gives the way from one command to the next, in units of its `scale`; any
    other one, the gripper too, gives the later command, in the policy's units.
    """

    def __init__(self, robot: RobotDescription) -> None:
        self._scale = action_scale(robot)
        self.relative = self._scale.per_step

    def __call__(self, before: np.ndarray, after: np.ndarray) -> np.ndarray:
        """Actions float64 [..., N] that lead from commands `before` to `after` [..., N] in one step of the policy."""
        origin = np.where(self._scale.per_step, before, self._scale.offset)
        actions: np.ndarray = (after - origin) / self._scale.factor
        return actions

    def moved(self, before: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """Where actions [..., N] lead from `before`: the inverse of a call."""
        origin = np.where(self._scale.per_step, before, self._scale.offset)
        after: np.ndarray = origin + self._scale.factor * actions
        return after
