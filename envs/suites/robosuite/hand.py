"""What one robot of robosuite knows of itself, and how it is driven."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.envs.suites.robosuite.operational_space import OperationalSpace


class Hand:
    """Where one robot of the library keeps what it knows of itself, and its controllers.

    Attributes:
        state: names of the elements of `read`.
        site: number of the site between the fingers.
        fingers: indices of the finger joints in `qpos`.
    """

    def __init__(self, robot: Any) -> None:
        model = robot.sim.model
        self._robot = robot
        self._qpos = np.asarray(robot._ref_joint_pos_indexes)
        self._qvel = np.asarray(robot._ref_joint_vel_indexes)
        self.site = robot.eef_site_id["right"]
        self._body = model.body_name2id(robot.robot_model.eef_name["right"])
        self.fingers = np.asarray(robot._ref_gripper_joint_pos_indexes["right"] or (), int)
        self._limits = {
            part: (indices, *model.actuator_ctrlrange[indices].T)
            for part, indices in robot._ref_actuators_indexes_dict.items()
        }
        self._joints = [f"joint{number}" for number in range(1, len(self._qpos) + 1)]
        self.state = (
            *(f"{joint}.position" for joint in self._joints),
            *(f"{joint}.velocity" for joint in self._joints),
            *(f"eef.{axis}" for axis in ("x", "y", "z", "qx", "qy", "qz", "qw")),
            *(f"finger{number}.position" for number in range(1, len(self.fingers) + 1)),
        )
        self._grips = robot.gripper["right"].dof
        self._space: OperationalSpace | None = None

    def action(self, controller: str) -> tuple[str, ...]:
        """Names of the elements of an action under a controller."""
        position, rotation = ("eef.dx", "eef.dy", "eef.dz"), ("eef.rx", "eef.ry", "eef.rz")
        arm = {
            "OSC_POSE": (*position, *rotation),
            "OSC_POSITION": position,
            "JOINT_POSITION": tuple(f"{joint}.delta" for joint in self._joints),
        }[controller]
        return (*arm, *["gripper"] * self._grips)

    def start(self) -> None:
        """Look up the controllers, which the library makes anew at each reset."""
        control = self._robot.part_controllers["right"]
        operational = control.name.startswith("OSC") and self._robot.lite_physics
        self._space = OperationalSpace(control) if operational else None

    def drive(self, data: Any) -> None:
        """Write the torques that lead towards the goal of the present action."""
        if self._space is not None:  # the fingers, too, go on as they do
            self._write(data, "right", self._space.torques())
            return
        robot = self._robot
        for part, torques in robot.composite_controller.run_controller(robot._enabled_parts).items():
            self._write(data, part, torques)

    def _write(self, data: Any, part: str, torques: np.ndarray) -> None:
        indices, low, high = self._limits[part]
        data.ctrl[indices] = np.minimum(np.maximum(torques, low), high)

    def read(self, data: Any) -> np.ndarray:
        """The state float64 [P]."""
        w, x, y, z = data.xquat[self._body]
        position = data.site_xpos[self.site]
        return np.concatenate(
            [data.qpos[self._qpos], data.qvel[self._qvel], position, (x, y, z, w), data.qpos[self.fingers]]
        )
