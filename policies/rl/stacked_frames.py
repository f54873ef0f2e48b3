"""Raw frames for agents that learn their own encoder: stacked on channels, small if asked for, never encoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper

from embodied.core.errors import UsageError
from embodied.core.protocols import STATE, image_key
from embodied.policies.rl.frames import frames_space, seen_frames, stacked


class StackedFrames(VecEnvWrapper):
    """Observations uint8 [N, 3 T, S, S] from frames [N, T, H, W, 3] of environments with a history of T.

    With proprioception they are dicts, see `frames.seen_frames`.

    Args:
        environments: with observations of the names of `core.protocols`.
        camera: whose frames.
        image_size: S that frames are brought to; None: as they come.
        proprioception: whether to add `observation.state`, where the robot has it.

    Raises:
        UsageError: so many frames of such a size cannot be told from a picture with its channels last.
    """

    def __init__(
        self, environments: VecEnv, *, camera: str, image_size: int | None = None, proprioception: bool = False
    ) -> None:
        spaces: Any = environments.observation_space
        self._key, self._size = image_key(camera), image_size
        self.state_dim = int(spaces[STATE].shape[-1]) if proprioception and STATE in spaces.spaces else 0
        empty = torch.zeros((1, *spaces[self._key].shape), dtype=torch.uint8)
        self.frames_shape = tuple(stacked(empty, image_size).shape[1:])
        if self.frames_shape[0] >= self.frames_shape[1]:
            raise UsageError(
                f"policy.history={self.frames_shape[0] // 3} is too long for frames of {self.frames_shape[1]} pixels: "
                "three channels per moment must be fewer than those"
            )
        super().__init__(environments, observation_space=frames_space(self.frames_shape, self.state_dim))

    def reset(self) -> Any:
        return self._seen(self.venv.reset())

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                last = {name: values[None] for name, values in info["terminal_observation"].items()}
                info["terminal_observation"] = _first_row(self._seen(last))
        return self._seen(observations), rewards, dones, infos

    def _seen(self, observations: Any) -> np.ndarray | dict[str, np.ndarray]:
        assert isinstance(observations, Mapping), type(observations)
        names = [self._key, STATE] if self.state_dim else [self._key]
        tensors = {name: torch.from_numpy(np.ascontiguousarray(observations[name])) for name in names}
        seen = seen_frames(tensors, key=self._key, image_size=self._size, proprioception_dim=self.state_dim)
        return {name: part.numpy() for name, part in seen.items()} if isinstance(seen, dict) else seen.numpy()


def _first_row(seen: np.ndarray | dict[str, np.ndarray]) -> Any:
    return {name: part[0] for name, part in seen.items()} if isinstance(seen, dict) else seen[0]
