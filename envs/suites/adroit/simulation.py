"""The physics of the Adroit tasks: gymnasium-robotics' environments, with the success rule of their authors."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.envs.simulation import Progress, TaskSpec
from embodied.envs.suites._robotics import import_robotics
from embodied.envs.suites.adroit.tasks import (
    CAMERAS,
    HORIZONS,
    INSTRUCTIONS,
    SHARED_CAMERAS,
    STEPS_TO_SUCCEED,
    joints_of,
)

_PEN_DROPPED = 0.075  # metres above the floor
_FINGER_JOINTS = 22


class AdroitSimulation:
    """One Adroit task.

    State: the angles (positions of the arm's sliding joints) of the robot's joints in rad (m), then their velocities.
    Action: wanted joint positions, [-1, 1] over each joint's range. Environment state: the library's observation, the
    velocities of everything, and with the door the position of the first joint, which the library leaves out.

    Success: the goal was achieved on more than 20 (pen) or 25 steps of this episode. The reward is the library's dense
    one with the sign of one term put right. A dropped pen ends the episode, as in the authors' mj_envs.

    `protocol=cortex` is CortexBench's: the state is the library's first 24 (pen) or 30 (relocate) numbers, the joints'
    positions, and an episode goes on after the success.
    """

    def __init__(self, task: str, *, protocol: str | None = None) -> None:
        self._task, self._cortex = task, protocol == "cortex"
        module = import_robotics("envs.adroit_hand")
        self.library: Any = getattr(module, f"AdroitHand{task.capitalize()}Env")(reward_type="dense")
        self._observe = self.library._get_obs
        self.library._get_obs = lambda: None  # its steps need none, and one costs up to half of the physics
        self._joints = joints_of(task)
        self._achieved = 0
        self.reset(0)
        self.spec = self._describe()

    def _describe(self) -> TaskSpec:
        positions = tuple(f"{name}.position" for name in self._joints)
        velocities = tuple(f"{name}.velocity" for name in self._joints)
        count = len(self._joints)
        cameras = CAMERAS if self._task == "pen" else SHARED_CAMERAS
        return TaskSpec(
            suite="adroit",
            task=self._task,
            instruction=INSTRUCTIONS[self._task],
            robot="adroit_hand",
            cameras={name: CAMERAS[name] for name in cameras},
            fps=100.0,  # 5 physics steps of 2 ms
            horizon=HORIZONS[self._task],
            horizon_limit=1000,
            state=positions if self._cortex else positions + velocities,
            environment_state=len(self._privileged()),
            action=positions,
            action_low=np.full(count, -1, np.float32),
            action_high=np.full(count, 1, np.float32),
            gripper=tuple(range(count - _FINGER_JOINTS, count)),
            ends_on_success=not self._cortex,
        )

    @property
    def model(self) -> Any:
        return self.library.model

    @property
    def data(self) -> Any:
        return self.library.data

    def reset(self, seed: int) -> None:
        self.library.reset(seed=seed)
        self._achieved = 0

    def step(self, action: np.ndarray) -> Progress:
        _, reward, _, _, info = self.library.step(action)
        self._achieved += bool(info["success"])
        success = self._achieved > STEPS_TO_SUCCEED[self._task]
        return Progress(float(reward) + self._correction(), success, failed=self._dropped())

    def _correction(self) -> float:
        """The library rewards the distance from hand to object where the authors' mj_envs punish it.

        Mended in its next release: https://github.com/Farama-Foundation/Gymnasium-Robotics/pull/220
        """
        if self._task == "pen":
            return 0.0
        palm = self.data.site("S_grasp").xpos
        object_ = self.data.site("S_handle").xpos if self._task == "door" else self.data.body("Object").xpos
        return -0.2 * float(np.linalg.norm(palm - object_))

    def _dropped(self) -> bool:
        return self._task == "pen" and bool(self.data.body("Object").xpos[2] < _PEN_DROPPED)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        count = len(self._joints)
        positions = self.data.qpos[:count]
        state = positions if self._cortex else np.concatenate([positions, self.data.qvel[:count]])
        return state.astype(np.float32), self._privileged().astype(np.float32)

    def _privileged(self) -> np.ndarray:
        left_out = self.data.qpos[:1] if self._task == "door" else ()
        return np.concatenate([self._observe(), self.data.qvel, left_out])
