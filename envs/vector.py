"""Several environments side by side, each in a process of its own, on Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from embodied.core.errors import UsageError
from embodied.envs.gl import select_gl_backend
from embodied.envs.rollout import die_with_parent
from embodied.envs.task_env import TaskEnv


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
    """Makes one environment; can be sent to another process, which then ends with the one that sent it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = dict(options)

    def __call__(self) -> gymnasium.Env[Any, Any]:
        die_with_parent()
        return RestAfterEnd(TaskEnv(**self._options))


def make_vector_env(env_options: Mapping[str, Any], *, num_envs: int) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments, in worker processes when there are several; never reset by itself.

    Args:
        env_options: arguments of `TaskEnv`.
        num_envs: at least 1.

    Returns:
        A vector environment whose observations are [N, ...] arrays that are overwritten by the next step. Close it.
    """
    if num_envs < 1:
        raise UsageError(f"num_envs must be at least 1, got {num_envs}")
    select_gl_backend()  # here once, so that the workers inherit the choice
    factory = EnvironmentFactory(env_options)
    if num_envs == 1:
        return SyncVectorEnv([factory], copy=False, autoreset_mode=AutoresetMode.DISABLED)
    return AsyncVectorEnv(
        [factory] * num_envs,
        shared_memory=True,
        copy=False,
        context="spawn",
        autoreset_mode=AutoresetMode.DISABLED,
    )


def reset_slots(environment: VectorEnv[Any, Any, Any], seeds: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Reset the slots that have a seed; returns the observations of all, the others' unchanged."""
    mask = np.array([seed is not None for seed in seeds])
    # The base class is annotated without the list of seeds that both of its subclasses take.
    observation, _ = environment.reset(seed=list(seeds), options={"reset_mask": mask})  # type: ignore[arg-type]
    return dict(observation)
