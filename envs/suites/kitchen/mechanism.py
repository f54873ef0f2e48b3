"""How an object of the kitchen moves: along its joint, or, the kettle, along the counter."""

from __future__ import annotations

import numpy as np

from embodied.envs.suites.kitchen.reaching import turned
from embodied.envs.suites.kitchen.simulation import KitchenSimulation

_EXTRA = 0.05  # rad or m by which the goal is passed: what pushes lags behind


class Mechanism:
    """A joint that is to be brought to a value; reads the simulation only.

    Args:
        simulation: of the kitchen.
        joint: its name; empty for the kettle, which goes straight on without an aim.
        aim: the value, rad or m.
    """

    def __init__(self, simulation: KitchenSimulation, *, joint: str, aim: float) -> None:
        self._simulation, self._aim = simulation, aim
        self._joint = simulation.model.joint(joint).id if joint else None
        self._hinge = False
        if self._joint is not None:
            import mujoco

            self._hinge = simulation.model.jnt_type[self._joint] == mujoco.mjtJoint.mjJNT_HINGE

    def turned(self, ahead: float = 0.0) -> np.ndarray:
        """How the object has turned since the joint was at 0, [3, 3], and would have further on the way to the aim."""
        if not self._hinge:
            return np.eye(3)
        return turned(self._simulation.data.xaxis[self._joint], self.value + ahead * np.sign(self._aim))

    def ahead(self, point: np.ndarray, lead: float) -> np.ndarray:
        """Where a point [3] of the object would be after `lead` (rad or m) of the way to the aim, at most there."""
        if self._joint is None:
            return point + np.array([0.0, lead, 0.0])
        data = self._simulation.data
        axis, step = data.xaxis[self._joint], self._aim - self.value
        step = np.sign(self._aim) * min(lead, abs(step) + _EXTRA)
        if not self._hinge:
            return np.asarray(point + axis * step)
        anchor = data.xanchor[self._joint]
        return np.asarray(anchor + turned(axis, step) @ (point - anchor))

    @property
    def value(self) -> float:
        """Of the joint, rad or m."""
        return float(self._simulation.data.qpos[self._simulation.model.jnt_qposadr[self._joint]])
