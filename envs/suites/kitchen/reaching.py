"""Moves the arm's gripper to a pose: differential inverse kinematics for the kitchen's joint velocity actions."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.envs.suites.kitchen.simulation import KitchenSimulation

# The gripper's axes with fingers pointing into the kitchen: columns up, right (the way the fingers open), forward.
FORWARD = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
_ARM = 7
_LAG = 1.6  # servos reach about half of a step before the next begins
_DAMPING = 1e-3
_POSITION_STEP, _ROTATION_STEP = 0.12, 0.4  # m and rad that are aimed at in one action, at most
_LIMIT_MARGIN = 0.03  # rad


class Reaching:
    """Actions that bring the gripper to a pose and keep joints off their limits; reads the simulation only.

    Args:
        simulation: of the kitchen.
        posture: joint angles [7] to which the arm drifts where the gripper's pose leaves it free.
        rotation_weight: metres that a radian of wrong orientation counts as.
        drift: share of the way to the posture in one action.
    """

    def __init__(
        self, simulation: KitchenSimulation, *, posture: np.ndarray | None, rotation_weight: float, drift: float
    ) -> None:
        self._simulation = simulation
        self._site = simulation.model.site("end_effector").id
        self._posture, self._weight, self._drift = posture, rotation_weight, drift

    @property
    def position(self) -> np.ndarray:
        """Of the point between the fingertips, [3], m."""
        position: np.ndarray = self._simulation.data.site_xpos[self._site].copy()
        return position

    def action(self, position: np.ndarray, rotation: np.ndarray, *, closed: bool) -> np.ndarray:
        """The action float32 [9] that brings the gripper nearer to a position [3] and rotation [3, 3]."""
        model, data = self._simulation.model, self._simulation.data
        step = self._joint_step(self._error(position, rotation))
        gravity = data.qfrc_bias[:_ARM] / model.actuator_gainprm[:_ARM, 0]  # how far servos sag under it
        # An action of 1 moves a servo's target this far before the next comes.
        arm = (_LAG * step + gravity) * self._simulation.spec.fps / self._simulation.speed
        fingers = np.full(2, -1.0 if closed else 1.0)
        return np.concatenate([arm / max(1.0, np.abs(arm).max()), fingers]).astype(np.float32)

    def _error(self, position: np.ndarray, rotation: np.ndarray) -> np.ndarray:
        """What is missing to the pose, [6]: metres, and radians times their weight, both at most a step."""
        import mujoco

        quaternion, turn = np.zeros(4), np.zeros(3)
        present = self._simulation.data.site_xmat[self._site].reshape(3, 3)
        mujoco.mju_mat2Quat(quaternion, (rotation @ present.T).ravel())
        mujoco.mju_quat2Vel(turn, quaternion, 1.0)
        way = position - self.position
        return np.concatenate([_shortened(way, _POSITION_STEP), self._weight * _shortened(turn, _ROTATION_STEP)])

    def _joint_step(self, error: np.ndarray) -> np.ndarray:
        """Damped least squares [7]; joints that would pass a limit stay, and the others make up for them."""
        import mujoco

        model, data = self._simulation.model, self._simulation.data
        linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
        mujoco.mj_jacSite(model, data, linear, angular, self._site)
        jacobian = np.concatenate([linear[:, :_ARM], self._weight * angular[:, :_ARM]])  # (6, 7)
        joints, (low, high) = data.qpos[:_ARM], model.jnt_range[:_ARM].T
        stays, step = np.zeros(_ARM, bool), np.zeros(_ARM)
        for _ in range(_ARM):
            free = np.where(stays, 0.0, jacobian)
            inverse = free.T @ np.linalg.inv(free @ free.T + _DAMPING * np.eye(6))  # (7, 6)
            step = inverse @ error
            if self._posture is not None:
                drift = np.where(stays, 0.0, self._drift * (self._posture - joints))
                step += drift - inverse @ (free @ drift)
            after = joints + step
            passes = ((after > high - _LIMIT_MARGIN) & (step > 0)) | ((after < low + _LIMIT_MARGIN) & (step < 0))
            if not (passes & ~stays).any():
                break
            stays |= passes
        return np.where(stays, 0.0, step)


def turned(axis: Any, angle: float) -> np.ndarray:
    """Rotation matrix [3, 3] about an axis [3] by an angle in rad."""
    import mujoco

    quaternion, matrix = np.zeros(4), np.zeros(9)
    mujoco.mju_axisAngle2Quat(quaternion, np.asarray(axis, np.float64), angle)
    mujoco.mju_quat2Mat(matrix, quaternion)
    return matrix.reshape(3, 3)


def pointing(*, pitch: float, yaw: float) -> np.ndarray:
    """`FORWARD` turned down by `pitch` and to the left by `yaw`, rad."""
    return turned((0, 0, 1), yaw) @ turned((1, 0, 0), -pitch) @ FORWARD


def _shortened(vector: np.ndarray, length: float) -> np.ndarray:
    return vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
