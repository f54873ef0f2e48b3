"""What a robot of the DeepMind Control Suite knows of itself, read from the simulator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from embodied.envs.suites.dmc.domains import Domain

if TYPE_CHECKING:
    import mujoco


class Proprioception:
    """`observation.state` of a robot.

    In this order: positions of slides (metres) and of hinges with limits (radians); cosines, then sines, of hinges
    without limits; velocities of all these joints (metres or radians per second); touch as log(1 + newtons), as the
    suite scales it; angular velocity of the inertial unit (radians per second, in its frame); the direction of up in
    the frame of the torso; position of the end effector (metres).

    Attributes:
        names: of the elements, such as `right_knee.position`.
    """

    def __init__(self, model: mujoco.MjModel, domain: Domain) -> None:
        import mujoco

        hinge = mujoco.mjtJoint.mjJNT_HINGE
        joints = [model.joint(name) for name in domain.joints]
        endless = [joint for joint in joints if joint.type[0] == hinge and not joint.limited[0]]
        bounded = [joint for joint in joints if joint not in endless]
        self._bounded = np.array([joint.qposadr[0] for joint in bounded], int)
        self._endless = np.array([joint.qposadr[0] for joint in endless], int)
        self._velocities = np.array([joint.dofadr[0] for joint in joints], int)
        self._touch = np.array([model.sensor(name).adr[0] for name in domain.touch], int)
        start = model.sensor(domain.gyro).adr[0] if domain.gyro else 0
        self._gyro = slice(start, start + 3 if domain.gyro else start)
        self._up = model.body(domain.up).id if domain.up else None
        body, axes = domain.tip or ("world", "")
        self._tip = (model.body(body).id, ["xyz".index(axis) for axis in axes])
        self.names = (
            *(f"{joint.name}.position" for joint in bounded),
            *(f"{joint.name}.cos" for joint in endless),
            *(f"{joint.name}.sin" for joint in endless),
            *(f"{joint.name}.velocity" for joint in joints),
            *(name if name.endswith("touch") else f"{name}.touch" for name in domain.touch),
            *(f"gyro.{axis}" for axis in "xyz" if domain.gyro),
            *(f"up.{axis}" for axis in "xyz" if domain.up),
            *(f"{body}.{axis}" for axis in axes),
        )

    def __call__(self, data: mujoco.MjData) -> np.ndarray:
        """The readings now, float32 [P]."""
        angles = data.qpos[self._endless]
        tip, axes = self._tip
        parts = [
            data.qpos[self._bounded],
            np.cos(angles),
            np.sin(angles),
            data.qvel[self._velocities],
            np.log1p(data.sensordata[self._touch]),
            data.sensordata[self._gyro],
            data.xmat[self._up][6:] if self._up is not None else (),  # the last row turns the world's z to the body's
            data.xpos[tip][axes],
        ]
        return np.concatenate(parts).astype(np.float32)
