"""Gymnasium's vector environments behind stable-baselines3's interface, without a copy or a pickle of observations."""

from __future__ import annotations

from collections.abc import Sequence
from time import time
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from stable_baselines3.common.vec_env import VecEnv

from embodied.core.errors import UserError
from embodied.core.seeding import derive_seed

Observations = dict[str, np.ndarray]


class SlotVecEnv(VecEnv):
    """What stable-baselines3 steps. Observations are dicts of arrays [N, ...] that the next step overwrites.

    Episodes get their seeds from (seed, slot, number of the episode): the same whatever ran before in other slots.

    Args:
        environment: a vector environment that resets a slot in the step that ends its episode.
        seed: of the placements; `restart` gives another.
    """

    def __init__(self, environment: VectorEnv[Any, Any, Any], *, seed: int) -> None:
        if environment.metadata.get("autoreset_mode") is not AutoresetMode.SAME_STEP:
            raise ValueError(f"expected a vector environment with autoreset SAME_STEP, got {environment.metadata}")
        self.environment = environment
        super().__init__(environment.num_envs, environment.single_observation_space, environment.single_action_space)
        self._actions = np.zeros(0)
        self._started = time()
        self.restart(seed)

    def restart(self, seed: int) -> None:
        """The next reset begins the episodes of this seed; resets nothing by itself."""
        self._seeds = [derive_seed(seed, "slot", slot) % 2**31 for slot in range(self.num_envs)]
        self._returns, self._lengths = np.zeros(self.num_envs), np.zeros(self.num_envs, int)

    def reset(self) -> Observations:
        observations, _ = self.environment.reset(seed=list(self._seeds))  # type: ignore[arg-type]
        self._returns[:] = 0
        self._lengths[:] = 0
        return dict(observations)

    def step_async(self, actions: np.ndarray) -> None:
        """Actions [N, A]. Raises UserError where one is not finite: no simulator says what it makes of that."""
        if not np.isfinite(actions).all():
            raise UserError("the actions of the agent are not finite: lower policy.learning_rate")
        self._actions = actions

    def step_wait(self) -> tuple[Observations, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, terminated, truncated, infos = self.environment.step(self._actions)
        self._returns += rewards
        self._lengths += 1
        done = terminated | truncated
        notes: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for slot in np.flatnonzero(done):
            final = {name: values[slot] for name, values in infos["final_info"].items() if name[0] != "_"}
            notes[slot] = {
                "terminal_observation": infos["final_obs"][slot],
                "TimeLimit.truncated": bool(truncated[slot] and not terminated[slot]),
                "is_success": bool(final["success"]),
                "score": float(final["score"]),
                "episode": {
                    "r": float(self._returns[slot]),
                    "l": int(self._lengths[slot]),
                    "t": time() - self._started,
                },
            }
            self._returns[slot] = self._lengths[slot] = 0
        return dict(observations), rewards.astype(np.float32), done, notes

    def close(self) -> None:
        self.environment.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        value = getattr(self.environment, attr_name, None)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        raise NotImplementedError("the environments live in other processes: make new ones with other options")

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        raise NotImplementedError("the environments live in other processes: make new ones with other options")

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[np.ndarray | None]:
        return [None] * self.num_envs
