"""Tasks of the DeepMind Control Suite, simulated."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np

from embodied.core.errors import MissingExtraError
from embodied.envs.simulation import Camera, Progress, TaskSpec
from embodied.envs.suites.dmc.domains import TORSO_ELEMENTS, domain_of
from embodied.envs.suites.dmc.proprioception import Proprioception
from embodied.envs.suites.dmc.tasks import INSTRUCTIONS, success_score

CONTROL_STEPS = 1000  # of an episode, in every task
CORTEX_REPEAT = 2
MAIN_CAMERA = "main"  # by the number 0, which every task has: the view of pixel-based work


class DMControlSimulation:
    """One task of the suite, stepped without the observations that nobody asked for.

    State: see `Proprioception`; never the targets and objects of a task. Environment state: the suite's observation,
    flattened in its order, and what it lacks: see `domains.TORSO_ELEMENTS`.

    Rewards are the suite's, in [0, 1] for each of an episode's 1000 control steps. Score: their sum so far over 1000,
    so a complete episode's return over 1000, whatever the action repeat; what comes after the 1000th control step does
    not count. Success: the score so far has reached `tasks.success_score`.

    `protocol=cortex` is CortexBench's: five tasks, no proprioception, the camera of number 0, which is `main`. Its
    action repeat is not in its published code or papers; it is 2 here, as is common for control of this suite from
    pixels: an action is held for two control steps and an episode has 500.

    Raises:
        MissingExtraError: dm-control is not installed.
    """

    def __init__(self, task: str, *, protocol: str | None = None) -> None:
        self.library = environment = _load(task)
        self._task, self._physics = environment.task, environment.physics
        cortex = protocol == "cortex"
        self._repeat = CORTEX_REPEAT if cortex else 1
        self._substeps = round(environment.control_timestep() / self._physics.timestep())
        self._steps, self._return, self._success_score = 0, 0.0, success_score(task)
        domain = domain_of(task)
        self._proprioception = None if cortex else Proprioception(self.model, domain)
        self._torso_elements = TORSO_ELEMENTS.get(domain.robot, {})
        self._torso = self.model.body("torso").id if self._torso_elements else 0
        cameras = {name: Camera(name=name) for name in domain.cameras}
        bounds = environment.action_spec()
        self.reset(0)  # for the sizes of the observation
        self.spec = TaskSpec(
            suite="dmc",
            task=task,
            instruction=INSTRUCTIONS[task],
            robot=domain.robot,
            cameras={MAIN_CAMERA: cameras[domain.cameras[0]], **cameras},
            fps=1 / (environment.control_timestep() * self._repeat),
            horizon=CONTROL_STEPS // self._repeat,
            horizon_limit=CONTROL_STEPS // self._repeat,
            state=() if self._proprioception is None else self._proprioception.names,
            environment_state=self._environment_state_names(),
            action=tuple(self.model.actuator(index).name for index in range(self.model.nu)),
            action_low=bounds.minimum.astype(np.float32),
            action_high=bounds.maximum.astype(np.float32),
            ends_on_success=False,
        )

    @property
    def model(self) -> Any:
        return self._physics.model.ptr

    @property
    def data(self) -> Any:
        return self._physics.data.ptr

    def reset(self, seed: int) -> None:
        self._task.random.seed(seed % 2**32)
        self._steps, self._return = 0, 0.0
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)

    def step(self, action: np.ndarray) -> Progress:
        from dm_control.rl.control import PhysicsError

        reward, failed = 0.0, False
        for _ in range(self._repeat):
            try:
                self._task.before_step(action, self._physics)
                self._physics.step(self._substeps)
                self._task.after_step(self._physics)
            except PhysicsError:  # the simulation has diverged
                failed = True
                break
            gained = float(self._task.get_reward(self._physics))
            self._steps += 1
            if self._steps <= CONTROL_STEPS:
                self._return += gained
            reward += gained
        score = self._return / CONTROL_STEPS
        return Progress(reward, score >= self._success_score, score, failed)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        state = np.zeros(0, np.float32) if self._proprioception is None else self._proprioception(self.data)
        parts = [np.ravel(part) for part in self._task.get_observation(self._physics).values()]
        parts.append(self.data.xmat[self._torso][list(self._torso_elements.values())])
        return state, np.concatenate(parts).astype(np.float32)

    def _environment_state_names(self) -> tuple[str, ...]:
        observation = self._task.get_observation(self._physics)
        parts = [[f"{name}.{index}" for index in range(np.size(part))] for name, part in observation.items()]
        return (*chain.from_iterable(parts), *self._torso_elements)


def _load(task: str) -> Any:
    """The library's environment of a task, such as `walker_walk`."""
    try:
        from dm_control import suite
    except ModuleNotFoundError as error:
        if error.name != "dm_control":
            raise
        raise MissingExtraError("dm-control", "dmc") from error

    names = {f"{domain}_{name}": (domain, name) for domain, name in suite.BENCHMARKING}
    return suite.load(*names[task])
