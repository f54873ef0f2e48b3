"""Several environments side by side, each in a process of its own, on Gymnasium's vector environments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from embodied.core.errors import UsageError, unknown_name
from embodied.envs.gl import select_gl_backend, spread_over_gpus
from embodied.envs.task_env import TaskEnv
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
    autoreset: str = "disabled",
    gl_devices: Sequence[int] | None = None,
) -> VectorEnv[Any, Any, Any]:
    """`num_envs` environments, in worker processes when there are several.

    Args:
        env_options: arguments of `TaskEnv`.
        num_envs: at least 1.
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
    if autoreset not in AUTORESETS:
        raise unknown_name("autoreset", autoreset, AUTORESETS)
    select_gl_backend()  # here once, so that the workers inherit the choice
    factory = EnvironmentFactory(env_options, rests=autoreset == "disabled")
    mode = AUTORESETS[autoreset]
    if num_envs == 1:
        return SyncVectorEnv([factory], copy=False, autoreset_mode=mode)
    task = f"{env_options.get('suite', 'metaworld')}/{env_options.get('task') or 'default task'}"
    return WorkerVectorEnv(
        factory,
        names=[f"environment {slot} ({task})" for slot in range(num_envs)],
        gl_devices=spread_over_gpus(num_envs, gl_devices),
        autoreset=mode,
    )


def reset_slots(environment: VectorEnv[Any, Any, Any], seeds: Sequence[int | None]) -> dict[str, np.ndarray]:
    """Reset the slots that have a seed; returns the observations of all, the others' unchanged."""
    mask = np.array([seed is not None for seed in seeds])
    # The base class is annotated without the list of seeds that both of its subclasses take.
    observation, _ = environment.reset(seed=list(seeds), options={"reset_mask": mask})  # type: ignore[arg-type]
    return dict(observation)
