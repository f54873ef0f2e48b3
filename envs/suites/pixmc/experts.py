"""Scripted behaviour for the eight tasks: a plan's way points, followed by inverse kinematics."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.envs.simulation import Simulation
from embodied.envs.suites.pixmc.assembly import GRIP
from embodied.envs.suites.pixmc.kinematics import displacement, turn_between
from embodied.envs.suites.pixmc.plans import PLANS, Aim, Plan
from embodied.envs.suites.pixmc.robots import ARM_JOINTS
from embodied.envs.suites.pixmc.simulation import PixMCSimulation

_LARGEST_SHIFT_M, _LARGEST_TURN_RAD = 0.1, 0.4  # of the grip that one inverse is asked for


class ScriptedExpert:
    """Reads the simulation; its actions are inside the bounds.

    Args:
        simulation: the one that it acts in.
    """

    def __init__(self, simulation: Simulation) -> None:
        assert isinstance(simulation, PixMCSimulation), simulation
        self._simulation = simulation
        self._plan = self._new_plan()
        model, robot = simulation.model, simulation.robot
        joints = [model.joint(name) for name in robot.joints[:ARM_JOINTS]]
        self._positions = np.array([joint.qposadr[0] for joint in joints])
        self._dofs = np.array([joint.dofadr[0] for joint in joints])
        self._comfort = np.array(robot.home_forward if simulation.goal_name == "cabinet" else robot.home)
        self._stride = np.array(robot.stride)
        self._grip = simulation.data.site(GRIP)

    def _new_plan(self) -> Plan:
        return PLANS[self._simulation.goal_name](self._simulation)

    def reset(self, seed: int) -> None:
        self._plan = self._new_plan()

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        aim = self._plan.aim()
        targets = np.concatenate([self._arm_targets(aim), aim.fingers])
        action = (targets - self._simulation.data.ctrl) / self._stride
        arm = action[:ARM_JOINTS]
        arm /= max(1.0, np.abs(arm).max())  # all slower alike, so that the grip keeps its course
        return np.clip(action, -1, 1).astype(np.float32)

    def _arm_targets(self, aim: Aim) -> np.ndarray:
        data, grip = self._simulation.data, self._grip
        joints = data.qpos[self._positions]
        turn = np.zeros(3) if aim.rotation is None else turn_between(grip.xmat.reshape(3, 3), aim.rotation)
        result: np.ndarray = joints + displacement(
            self._simulation.model,
            data,
            site=grip.id,
            dofs=self._dofs,
            shift=_limited(aim.position - grip.xpos, _LARGEST_SHIFT_M),
            turn=_limited(turn, _LARGEST_TURN_RAD),
            posture=self._comfort - joints,
        )
        return result


def _limited(vector: np.ndarray, length: float) -> np.ndarray:
    result: np.ndarray = vector * min(1.0, length / max(float(np.linalg.norm(vector)), 1e-9))
    return result
