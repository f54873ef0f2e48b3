"""Several environments side by side, spread over the cores, as one of Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.gl import select_gl_backend, spread_over_gpus
from embodied.envs.task_env import TaskEnv
from embodied.envs.worker_processes import usable_cores
from embodied.envs.worker_vector_env import WorkerVectorEnv

AUTORESETS = {  # what happens to a slot whose episode has ended
    "disabled": AutoresetMode.DISABLED,  # it rests until `reset_slots`
    "next_step": AutoresetMode.NEXT_STEP,  # the next step resets it, whatever the action
    "same_step": AutoresetMode.SAME_STEP,  # the step that ends it resets it; its last is `infos["final_obs"]`
}


class RestAfterEnd(gymnasium.Wrapper[Any, Any, Any, Any]):
    """After its episode has ended the environment rests until it is reset: stepping it repeats the last observation.

    The slots of a vector environment are stepped together, and one that has no episode left must not go on simulating.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._resting: tuple[Any, float, bool, bool, dict[str, Any]] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self._resting = None
        return self.env.reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._resting is not None:
            return self._resting
        observation, reward, terminated, truncated, info = self.env.step(action)
        if terminated or truncated:
            self._resting = (observation, 0.0, terminated, truncated, info)
        return observation, float(reward), terminated, truncated, info


class EnvironmentFactory:
    """Makes one environment; can be sent to another process.

    Args:
        options: arguments of `TaskEnv`.
        rests: see `RestAfterEnd`.
    """

    def __init__(self, options: Mapping[str, Any], *, rests: bool) -> None:
        self._options = dict(options)
        self._rests = rests

    def __call__(self) -> gymnasium.Env[Any, Any]:
        env = TaskEnv(**self._options)
        return RestAfterEnd(env) if self._rests else env


def make_vector_env(
    env_options: Mapping[str, Any],
    *,
    num_envs: int,
    workers: int | None = None,
    autoreset: str = "disabled",
    gl_devices: Sequence[int] | None = None,
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments, spread over worker processes.

    Args:
        env_options: arguments of `TaskEnv`.
        num_envs: at least 1. Several per worker use the cores better than one, see docs/rendering.md.
        workers: processes, no more of them than environments; None: one per core that this process may use. Where
            there would be one or none, everything happens here, unless `gl_devices` are given. No result depends on it.
        autoreset: a name of `AUTORESETS`.
        gl_devices: that the workers render on in turns, see `gl.spread_over_gpus`.

    Returns:
        A vector environment whose observations are [N, ...] arrays that are overwritten by the next step. Close it.

    Raises:
        UsageError: an option makes no sense.
        UserError: a worker was ended, as may happen in any of its methods, too; see `WorkerVectorEnv`.
    """
    if num_envs < 1:
        raise UsageError(f"num_envs must be at least 1, got {num_envs}")
    if workers is not None and workers < 0:
        raise UsageError(f"workers must be at least 0, got {workers}")
    if autoreset not in AUTORESETS:
        raise unknown_name("autoreset", autoreset, AUTORESETS)
    select_gl_backend()  # here once, so that the workers inherit the choice
    processes = min(num_envs, usable_cores() if workers is None else workers)
    if processes <= 1:
        processes = 1 if gl_devices else 0  # a device is chosen for a whole process
    return WorkerVectorEnv(
        EnvironmentFactory(env_options, rests=autoreset == "disabled"),
        num_envs=num_envs,
        gl_devices=spread_over_gpus(processes, gl_devices) if processes else (),
        task=f"{env_options.get('suite', 'metaworld')}/{env_options.get('task') or 'default task'}",
        autoreset=AUTORESETS[autoreset],
    )


def reset_slots(environment: VectorEnv[Any, Any, Any], seeds: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Reset the slots that have a seed; returns the observations of all, the others' unchanged."""
    mask = np.array([seed is not None for seed in seeds])
    # The base class is annotated without the list of seeds that its subclasses take.
    observation, _ = environment.reset(seed=list(seeds), options={"reset_mask": mask})  # type: ignore[arg-type]
    return dict(observation)
