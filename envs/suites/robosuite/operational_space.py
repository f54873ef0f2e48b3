"""robosuite's operational-space control between two actions, to the last bit, without what does not change meanwhile.

Khatib 1987, "A unified approach for motion and force control of robot manipulators: the operational space formulation".
Shapes: N joints of the arm, V degrees of freedom of the scene.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class OperationalSpace:
    """Torques of one arm whose goal stays where the library's controller was told.

    Args:
        controller: the library's `OperationalSpaceController`, of a robot that stands still.
    """

    def __init__(self, controller: Any) -> None:
        import mujoco
        from robosuite.utils import control_utils

        self._mujoco, self._library = mujoco, control_utils
        self._controller = controller
        model = controller.sim.model._model
        self._model, self._data = model, controller.sim.data._data
        self._site = model.site(controller.ref_name).id
        self._dofs, self._qpos = np.asarray(controller.qvel_index), np.asarray(controller.qpos_index)
        self._full_jacobian = np.zeros((6, model.nv))
        self._jacobian = np.zeros((6, len(self._dofs)))
        self._full_mass = np.zeros((model.nv, model.nv))

    def torques(self) -> np.ndarray:
        """For the present state of the simulation, float64 [N]."""
        control, data, library = self._controller, self._data, self._library
        self._mujoco.mj_jacSite(self._model, data, self._full_jacobian[:3], self._full_jacobian[3:], self._site)
        self._jacobian[:] = self._full_jacobian[:, self._dofs]  # (6, N)
        self._mujoco.mj_fullM(self._model, self._full_mass, data.qM)
        mass = self._full_mass[self._dofs, :][:, self._dofs]  # (N, N)
        velocity = data.qvel.copy()
        goal_position, goal_rotation = self._goal()
        turn = library.orientation_error(goal_rotation, data.site_xmat[self._site].reshape(3, 3).copy())
        force = (goal_position - data.site_xpos[self._site]) * control.kp[:3]
        force -= np.dot(self._full_jacobian[:3], velocity) * control.kd[:3]
        torque = turn * control.kp[3:] - np.dot(self._full_jacobian[3:], velocity) * control.kd[3:]
        _, linear, angular, nullspace = library.opspace_matrices(
            mass, self._jacobian, self._jacobian[:3], self._jacobian[3:]
        )
        wrench = np.concatenate([np.dot(linear, force), np.dot(angular, torque)])
        torques = np.dot(self._jacobian.T, wrench) + data.qfrc_bias[self._dofs]
        return torques + library.nullspace_torques(
            mass, nullspace, control.initial_joint, data.qpos[self._qpos], velocity[self._dofs]
        )

    def _goal(self) -> tuple[np.ndarray, np.ndarray]:
        """In the world's frame: position [3], rotation [3, 3]."""
        control = self._controller
        if control.input_ref_frame == "world":
            return control.goal_pos, control.goal_ori
        position = control.origin_pos + np.dot(control.origin_ori, control.goal_pos)
        return position, np.dot(control.origin_ori, control.goal_ori)
