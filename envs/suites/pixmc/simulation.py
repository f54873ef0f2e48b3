"""A robot in a scene with something to do, as a `Simulation`."""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from embodied.core.seeding import numpy_generator
from embodied.envs.simulation import Progress, TaskSpec
from embodied.envs.suites.pixmc.assembly import GRIP
from embodied.envs.suites.pixmc.goals import GOALS, pose_axes
from embodied.envs.suites.pixmc.robots import ARM_JOINTS, ROBOTS
from embodied.envs.suites.pixmc.scenes import CONTROL_HZ, SUBSTEPS, load_scene
from embodied.envs.suites.pixmc.suite import CAMERAS, INSTRUCTIONS

HOLD_STEPS = 10
_START_NOISE = 0.03  # rad, of the arm's joints at the start


class PixMCSimulation:
    """One of the eight tasks.

    State: positions and velocities of all joints, rad and rad/s (m and m/s for Franka's fingers): 18 of Franka, 38 of
    Kuka. Action: an element of 1 moves the target of its joint by the robot's `stride` within one step, which a
    position actuator follows; a target stays inside the joint's limits and within `lead` of the joint. Weight is
    compensated: an action of zeros holds still. 30 actions per second.

    Reward: see `goals`; in [-1, 0]. Success: the goal has been reached for 10 steps in a row.

    Raises:
        MissingExtraError: robosuite, which has the robots' files, is not installed.
    """

    def __init__(self, task: str) -> None:
        robot_name, goal_name = task.split("-")
        self.goal_name = goal_name
        self.robot = ROBOTS[robot_name]
        self._model = load_scene(robot_name, goal_name)
        self._data = mujoco.MjData(self._model)
        self.goal = GOALS[goal_name](self._model, self._data, self.robot)
        joints = [self._model.joint(name) for name in self.robot.joints]
        self._positions = np.array([joint.qposadr[0] for joint in joints])
        self._velocities = np.array([joint.dofadr[0] for joint in joints])
        self._limits = self._model.jnt_range[[joint.id for joint in joints]].T  # (2, J)
        self._home = np.array(
            (self.robot.home_forward if goal_name == "cabinet" else self.robot.home) + self.robot.opened
        )
        self._stride, self._lead = np.array(self.robot.stride), np.array(self.robot.lead)
        self._grip = self._data.site(GRIP)
        self._held_steps = 0
        self.spec = self._make_spec(task)

    def _make_spec(self, task: str) -> TaskSpec:
        names = self.robot.joints
        state = tuple(f"{name}.{part}" for part in ("position", "velocity") for name in names)
        grip = ("x", "y", "z", *(f"{axis}_axis.{part}" for axis in "xz" for part in "xyz"))
        privileged = (
            *state,
            *(f"{name}.target" for name in names),
            *(f"grip.{part}" for part in grip),
            *self.goal.names,
            "success.progress",
        )
        return TaskSpec(
            suite="pixmc",
            task=task,
            instruction=INSTRUCTIONS[task],
            robot=self.robot.name,
            cameras=CAMERAS,
            fps=float(CONTROL_HZ),
            horizon=self.goal.horizon,
            horizon_limit=self.goal.horizon_limit,
            state=state,
            environment_state=privileged,
            action=tuple(f"{name}.delta" for name in names),
            action_low=np.full(len(names), -1, np.float32),
            action_high=np.full(len(names), 1, np.float32),
            gripper=tuple(range(ARM_JOINTS, len(names))),
        )

    @property
    def model(self) -> Any:
        return self._model

    @property
    def data(self) -> Any:
        return self._data

    def reset(self, seed: int) -> None:
        random = numpy_generator(seed, "pixmc placement")
        mujoco.mj_resetData(self._model, self._data)
        start = self._home.copy()
        start[:ARM_JOINTS] += random.uniform(-_START_NOISE, _START_NOISE, ARM_JOINTS)
        self._data.qpos[self._positions] = self._data.ctrl[:] = start
        mujoco.mj_kinematics(self._model, self._data)
        self.goal.place(random)
        mujoco.mj_forward(self._model, self._data)
        self._held_steps = 0

    def step(self, action: np.ndarray) -> Progress:
        joints = self._data.qpos[self._positions]
        target = self._data.ctrl + self._stride * action
        target = np.clip(target, joints - self._lead, joints + self._lead)
        self._data.ctrl[:] = np.clip(target, *self._limits)
        mujoco.mj_step(self._model, self._data, SUBSTEPS)
        mujoco.mj_fwdPosition(self._model, self._data)  # a step leaves places and contacts of the moment before
        self._held_steps = self._held_steps + 1 if self.goal.reached() else 0
        return Progress(self.goal.worth() - 1.0, self._held_steps >= HOLD_STEPS)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        data = self._data
        state = [data.qpos[self._positions], data.qvel[self._velocities]]
        progress = [min(self._held_steps / HOLD_STEPS, 1.0)]
        grip = [self._grip.xpos, pose_axes(self._grip.xmat)]
        privileged = [*state, data.ctrl, *grip, *self.goal.state(), progress]
        return np.concatenate(state).astype(np.float32), np.concatenate(privileged).astype(np.float32)
