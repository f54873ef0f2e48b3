"""The physics of the kitchen: gymnasium-robotics' FrankaKitchen-v1 with a kitchen that is placed anew each episode."""

from __future__ import annotations

from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.seeding import numpy_generator
from embodied.envs.simulation import Progress, TaskSpec
from embodied.envs.suites._robotics import import_robotics
from embodied.envs.suites.kitchen.tasks import CAMERAS, GOALS, INSTRUCTIONS, LIBRARY_THRESHOLD, R3M_JOINTS, goals_of

ARM = 9  # seven joints and two fingers
RANDOMIZE_LIMIT = 0.15  # metres
_JOINTS = (*(f"joint{number}" for number in range(1, 8)), "finger1", "finger2")
_JOINT_NOISE = 0.025  # share of a joint's range by which it starts off its usual place, as in R3M's evaluation
_R3M_SPEED = 2 * np.pi  # rad/s
_R3M_TOLERANCE = 0.15  # share of a joint's range
_R3M_STEPS = 5  # R3M calls an episode a success that was solved on more steps than this


class KitchenSimulation:
    """One task in the Franka kitchen.

    State: 7 joint angles in rad and 2 finger positions in m, then their velocities. Action: joint velocities, 1 is
    2 rad/s (m/s), held for 80 ms by position servos, which lag behind: the arm reaches about 0.9 rad/s. Environment
    state: the library's observation without its noise [59], how the kitchen was moved [3], where the fingertips are
    [3], and which objects have been done [1 or more].

    Success is FrankaKitchen-v1's: the object's joints are within 0.3 of the goal, now. A sequence is done when each of
    its objects was done at some step; its score is the fraction of those. The reward is the library's: the number of
    objects done at this step for the first time.

    `protocol=r3m` is the evaluation of "R3M: A Universal Visual Representation for Robot Manipulation" (RoboHive
    v0.0.5, kitchen_multitask_v2.py): 50 steps whatever happens, the kitchen moved by up to 10 cm, actions of up to
    2 pi rad/s, state 9 joint positions, success when every object was within 15 % of its joint's range of the goal on
    more than 5 steps. The kettle is not among the objects: its joint has no range here.

    Args:
        task: one of `INSTRUCTIONS`.
        protocol: None or `r3m`.
        randomize: metres by which the kitchen is moved at most along x, y and z each episode; None: 0.05, under `r3m`
            0.1. Whatever it is, the arm's joints start up to 2.5 % of their range off their usual place.
    """

    def __init__(self, task: str, *, protocol: str | None = None, randomize: float | None = None) -> None:
        self.protocol = protocol
        self._r3m = protocol == "r3m"
        spread = (0.1 if self._r3m else 0.05) if randomize is None else randomize
        if isinstance(spread, bool) or not isinstance(spread, (int, float)) or not 0 <= spread <= RANDOMIZE_LIMIT:
            raise UsageError(f"env.randomize must be in [0, {RANDOMIZE_LIMIT}] metres, got {randomize!r}")
        self._spread = float(spread)
        self.library: Any = import_robotics("envs.franka_kitchen").KitchenEnv(
            robot_noise_ratio=0.0, object_noise_ratio=0.0
        )
        self._robot = self.library.robot_env
        self.speed = _R3M_SPEED if self._r3m else float(self._robot.act_rng[0])  # rad/s or m/s of an action of 1
        self._desk = self.model.body("desk").id
        self._desk_home = self.model.body_pos[self._desk].copy()
        self._goals = {name: GOALS[name] for name in goals_of(task)}
        self._done: dict[str, int] = {}  # steps on which each object was at its goal
        self._offset = np.zeros(3)
        self.spec = self._describe(task)

    def _describe(self, task: str) -> TaskSpec:
        positions = tuple(f"{name}.position" for name in _JOINTS)
        velocities = tuple(f"{name}.velocity" for name in _JOINTS)
        single = len(self._goals) == 1
        return TaskSpec(
            suite="kitchen",
            task=task,
            instruction=INSTRUCTIONS[task],
            robot="franka",
            cameras=CAMERAS,
            fps=12.5,  # 40 physics steps of 2 ms
            horizon=50 if self._r3m else GOALS[task].horizon if single else 280,
            horizon_limit=1000,
            state=positions if self._r3m else positions + velocities,
            environment_state=65 + len(self._goals),
            action=tuple(f"{name}.velocity" for name in _JOINTS),
            action_low=np.full(ARM, -1, np.float32),
            action_high=np.full(ARM, 1, np.float32),
            gripper=(7, 8),
            ends_on_success=not self._r3m,
        )

    @property
    def model(self) -> Any:
        return self.library.model

    @property
    def data(self) -> Any:
        return self.library.data

    def reset(self, seed: int) -> None:
        import mujoco

        random = numpy_generator(seed, "kitchen")
        while True:
            self._offset = random.uniform(-self._spread, self._spread, 3)
            qpos = self._robot.init_qpos.copy()
            low, high = self.model.jnt_range[:ARM].T
            arm = qpos[:ARM] + _JOINT_NOISE * random.uniform(-1, 1, ARM) * (high - low)
            qpos[:ARM] = np.clip(arm, low, high)
            qpos[23:26] += self._offset  # the kettle stands on the counter
            self.model.body_pos[self._desk] = self._desk_home + self._offset
            mujoco.mj_resetData(self.model, self.data)
            self.data.qpos[:] = qpos
            mujoco.mj_forward(self.model, self.data)
            if not self._robot_touches():
                break
        self._done = dict.fromkeys(self._goals, 0)

    def _robot_touches(self) -> bool:
        """Whether the arm is in contact with the kitchen: such a placement is drawn again."""
        bodies = self.model.geom_bodyid[self.data.contact.geom[: self.data.ncon]]  # (N, 2)
        arm = (bodies > 0) & (bodies < self._desk)  # the arm's bodies come before the desk's
        return bool((arm.sum(axis=1) == 1).any())

    def step(self, action: np.ndarray) -> Progress:
        import mujoco

        robot = self._robot
        velocity = self.speed * np.asarray(action, np.float64)
        low, high = robot.robot_pos_bound[:ARM].T
        self.data.ctrl[:] = np.clip(self.data.qpos[:ARM] + velocity * robot.dt, low, high)
        mujoco.mj_step(self.model, self.data, nstep=robot.frame_skip)
        return self._progress()

    def _progress(self) -> Progress:
        if self._r3m:
            return self._r3m_progress()
        qpos = self._qpos_at_home()
        now = [name for name, goal in self._goals.items() if goal.distance(qpos) < LIBRARY_THRESHOLD]
        reward = float(sum(not self._done[name] for name in now))
        for name in now:
            self._done[name] += 1
        if len(self._goals) == 1:
            return Progress(reward, bool(now))
        score = float(np.mean([steps > 0 for steps in self._done.values()]))
        return Progress(reward, score == 1, score)

    def _r3m_progress(self) -> Progress:
        (name, goal), *_ = self._goals.items()
        wanted = dict.fromkeys(R3M_JOINTS, 0.0)
        assert goal.r3m is not None, name
        wanted[goal.r3m[0]] = goal.r3m[1]
        joints = list(wanted)
        low, high = self.model.jnt_range[joints].T  # joint and element of qpos have one number up to the kettle's
        away = np.abs(self.data.qpos[joints] - np.array(list(wanted.values())))
        solved = bool((away < _R3M_TOLERANCE * (high - low)).all())
        self._done[name] += solved
        return Progress(float(solved), self._done[name] > _R3M_STEPS)

    def _qpos_at_home(self) -> np.ndarray:
        """`qpos` [30] with the kettle as if the kitchen had not been moved."""
        qpos: np.ndarray = self.data.qpos.copy()
        qpos[23:26] -= self._offset
        return qpos

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        qpos, qvel = self.data.qpos, self.data.qvel
        robot = qpos[:ARM] if self._r3m else np.concatenate([qpos[:ARM], qvel[:ARM]])
        hand = self.data.site("end_effector").xpos
        done = [float(steps > 0) for steps in self._done.values()]
        library = (qpos[:ARM], qvel[:ARM], qpos[ARM:], qvel[ARM:])  # FrankaKitchen-v1's observation without its noise
        everything = np.concatenate([*library, self._offset, hand, done])
        return robot.astype(np.float32), everything.astype(np.float32)
