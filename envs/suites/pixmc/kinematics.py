"""Differential inverse kinematics: joint displacements that bring a site to a pose. J joints; metres, radians."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import mujoco

_DAMPING = 0.05  # keeps displacements small near singular postures
_POSTURE_GAIN = 0.05


def turn_between(current: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The rotation vector [3], in the world, that turns one rotation matrix [3, 3] into another."""
    import mujoco

    quaternion, turn = np.zeros(4), np.zeros(3)
    mujoco.mju_mat2Quat(quaternion, np.ascontiguousarray(wanted @ current.T).ravel())
    mujoco.mju_quat2Vel(turn, quaternion, 1.0)
    return turn


def displacement(
    model: mujoco.MjModel,
    data: mujoco.MjData,
    *,
    site: int,
    dofs: np.ndarray,
    shift: np.ndarray,
    turn: np.ndarray,
    posture: np.ndarray,
) -> np.ndarray:
    """Joint displacements [J] that move a site by `shift` [3] and `turn` [3], by damped least squares.

    Wampler 1986 (doi 10.1109/TSMC.1986.289285): dq = J' (J J' + damping^2 1)^-1 e; what is left free goes to `posture`.

    Args:
        site: number of the site.
        dofs: numbers of the joints' degrees of freedom, [J].
        posture: displacement [J] towards a comfortable posture.
    """
    import mujoco

    linear, angular = np.zeros((3, model.nv)), np.zeros((3, model.nv))
    mujoco.mj_jacSite(model, data, linear, angular, site)
    jacobian = np.concatenate([linear[:, dofs], angular[:, dofs]])  # (6, J)
    inverse = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + _DAMPING**2 * np.eye(6))  # (J, 6)
    free = np.eye(len(dofs)) - inverse @ jacobian
    result: np.ndarray = inverse @ np.concatenate([shift, turn]) + free @ (_POSTURE_GAIN * posture)
    return result
