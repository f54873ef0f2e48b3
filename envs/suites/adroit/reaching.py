"""Moves the Adroit arm and wrist so that the palm comes to a pose: differential inverse kinematics; hand shapes."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.envs.suites.adroit.simulation import AdroitSimulation
from embodied.envs.suites.adroit.tasks import FINGERS

_FINGER_JOINTS = 22
_ROTATION_WEIGHT = 0.2  # metres that a radian of wrong orientation counts as
_ROTATION_STEP = 0.2  # rad that are aimed at in one action, at most
_DAMPING = 1e-4
_LIMIT_MARGIN = 0.005  # rad or m


class PalmReaching:
    """Actions that bring the palm's grasp point nearer to a place, with the orientation it had at first or another.

    Reads the simulation only.

    Args:
        simulation: whose episode has just begun.
        arm_lead, wrist_lead: how many steps ahead the servos' targets are set, as servos lag.
    """

    def __init__(self, simulation: AdroitSimulation, *, arm_lead: float, wrist_lead: float) -> None:
        self._simulation = simulation
        self._count = simulation.model.nu - _FINGER_JOINTS
        self._lead = np.array([arm_lead] * (self._count - 2) + [wrist_lead] * 2)
        self._site = simulation.model.site("S_grasp").id
        self._rotation = simulation.data.site_xmat[self._site].reshape(3, 3).copy()

    @property
    def position(self) -> np.ndarray:
        """Of the grasp point in front of the palm, [3], m."""
        position: np.ndarray = self._simulation.data.site_xpos[self._site].copy()
        return position

    def action(
        self, position: np.ndarray, fingers: np.ndarray, *, reach: float, turn: np.ndarray | None = None
    ) -> np.ndarray:
        """The action float32 [A] towards a position [3] by at most `reach` metres; `fingers` are angles [22] in rad.

        `turn` is a rotation [3, 3] from the orientation at first to the one that is wanted.
        """
        linear, angular = self._jacobians(self.position)
        jacobian = np.concatenate([linear, _ROTATION_WEIGHT * angular])  # (6, J)
        return self._moved(self._joint_step(jacobian, self._error(position, reach, turn)), fingers)

    def action_with_tool(self, tool: np.ndarray, place: np.ndarray, fingers: np.ndarray, *, reach: float) -> np.ndarray:
        """As `action`, but brings a point [3] of what the hand holds to a place [3], however the hand turns for it."""
        linear, _ = self._jacobians(tool)
        return self._moved(self._joint_step(linear, shortened(place - tool, reach)), fingers)

    def _jacobians(self, point: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of a point that moves with the palm, linear and angular, [3, J] each."""
        import mujoco

        model = self._simulation.model
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jac(model, self._simulation.data, linear, angular, point, model.site_bodyid[self._site])
        return linear[:, : self._count], angular[:, : self._count]

    def _moved(self, joint_step: np.ndarray, fingers: np.ndarray) -> np.ndarray:
        """The action float32 [A] that moves the arm and wrist on by `joint_step` [J]."""
        model, data, count = self._simulation.model, self._simulation.data, self._count
        aim = data.qpos[:count] + self._lead * joint_step
        stiffness = -model.actuator_biasprm[:count, 1]
        arm = (stiffness * aim + data.qfrc_bias[:count]) / model.actuator_gainprm[:count, 0]
        low, high = model.actuator_ctrlrange.T
        wanted = 2 * (np.concatenate([arm, fingers]) - low) / (high - low) - 1
        return np.clip(wanted, -1, 1).astype(np.float32)

    def _joint_step(self, jacobian: np.ndarray, error: np.ndarray) -> np.ndarray:
        """Damped least squares; joints that would pass a limit stay, and the others make up for them."""
        model, data, count = self._simulation.model, self._simulation.data, self._count
        joints, (low, high) = data.qpos[:count], model.jnt_range[:count].T
        stays, step = np.zeros(count, bool), np.zeros(count)
        for _ in range(count):
            free = np.where(stays, 0.0, jacobian)
            step = free.T @ np.linalg.solve(free @ free.T + _DAMPING * np.eye(len(error)), error)
            after = joints + step
            passes = ((after > high - _LIMIT_MARGIN) & (step > 0)) | ((after < low + _LIMIT_MARGIN) & (step < 0))
            if not (passes & ~stays).any():
                break
            stays |= passes
        return np.where(stays, 0.0, step)

    def _error(self, position: np.ndarray, reach: float, turn: np.ndarray | None) -> np.ndarray:
        """What is missing to the pose, [6]: metres, and radians times their weight, both at most a step."""
        import mujoco

        quaternion, missing = np.zeros(4), np.zeros(3)
        present = self._simulation.data.site_xmat[self._site].reshape(3, 3)
        wanted = self._rotation if turn is None else turn @ self._rotation
        mujoco.mju_mat2Quat(quaternion, (wanted @ present.T).ravel())
        mujoco.mju_quat2Vel(missing, quaternion, 1.0)
        way = shortened(position - self.position, reach)
        return np.concatenate([way, _ROTATION_WEIGHT * shortened(missing, _ROTATION_STEP)])


def shortened(vector: np.ndarray, length: float) -> np.ndarray:
    """The vector, or if it is longer than `length`, one of that length in its direction."""
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))


def fingers(angles: Mapping[str, float]) -> np.ndarray:
    """Joint angles [22] in rad: of a joint by its name, or of all fingers but the thumb by its ending; the others 0."""
    found = [angles.get(name, 0.0 if name.startswith("TH") else angles.get(name[2:], 0.0)) for name in FINGERS]
    return np.array(found)
