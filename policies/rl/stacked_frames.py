"""Raw frames for agents that learn their own encoder: stacked on channels, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from embodied.core.protocols import image_key


class StackedFrames(VecEnvWrapper):
    """Observations uint8 [N, 3 T, S, S] from frames [N, T, S, S, 3] of environments with a history of T.

    Args:
        environments: with observations of the names of `core.protocols`.
        camera: whose frames.
    """

    def __init__(self, environments: VecEnv, *, camera: str) -> None:
        spaces: Any = environments.observation_space
        self._key = image_key(camera)
        shape = stack_frames(np.zeros((1, *spaces[self._key].shape), np.uint8)).shape[1:]
        super().__init__(environments, observation_space=Box(0, 255, shape, np.uint8))

    def reset(self) -> np.ndarray:
        return self._stacked(self.venv.reset())

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = stack_frames(info["terminal_observation"][self._key][None])[0]
        return self._stacked(observations), rewards, dones, infos

    def _stacked(self, observations: Any) -> np.ndarray:
        assert isinstance(observations, Mapping), type(observations)
        return stack_frames(observations[self._key])


def stack_frames(frames: np.ndarray) -> np.ndarray:
    """uint8 [N, S, S, 3] or [N, T, S, S, 3] to a copy [N, 3 T, S, S], the oldest frame first."""
    moments = frames if frames.ndim == 5 else frames[:, None]
    count, history, height, width, channels = moments.shape
    first = np.ascontiguousarray(np.moveaxis(moments, -1, 2))  # (N, T, 3, S, S)
    return first.reshape(count, history * channels, height, width).copy()
