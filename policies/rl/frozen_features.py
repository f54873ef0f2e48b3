"""The frozen encoder as a wrapper around the environments: agents see features, and buffers store features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
from torch import nn

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import STATE
from embodied.encoders.modality import input_keys


class FrozenFeatures(VecEnvWrapper):
    """One batched call of the encoder per step for all environments; what comes out is float32 [N, V + P].

    The observation is the encoder's feature [V] followed by the proprioception [P] (none where the robot has none).
    An episode's last observation, which is needed for the value of a truncated one, is encoded in the same call.

    Args:
        environments: with observations of the names of `core.protocols`.
        encoder: frozen, on `device`; `modality` says whether it reads frames or the simulator's state, or nothing.
        camera: whose frames.
        feature: the encoder's output, `pooled` or another; [N, D] outputs are flattened.
        device: where the encoder is.
        proprioception: whether to add `observation.state`.

    Raises:
        UsageError: the encoder reads what these environments do not observe, or has no such output.
    """

    def __init__(
        self,
        environments: VecEnv,
        encoder: nn.Module,
        *,
        camera: str,
        feature: str = "pooled",
        device: torch.device,
        proprioception: bool = True,
    ) -> None:
        spaces: Any = environments.observation_space
        (self.input_key,) = input_keys(encoder, [camera])
        if self.input_key not in spaces.spaces:
            raise UsageError(
                f"the encoder reads {self.input_key!r}, these environments give {', '.join(spaces.spaces)}"
            )
        self.encoder, self.feature, self.device = encoder, feature, device
        self.state_dim = spaces[STATE].shape[0] if proprioception and STATE in spaces.spaces else 0
        shape = (1, *spaces[self.input_key].shape)
        self.feature_dim = self._features(np.zeros(shape, spaces[self.input_key].dtype)).shape[1]
        space = Box(-np.inf, np.inf, (self.feature_dim + self.state_dim,), np.float32)
        super().__init__(environments, observation_space=space)

    def reset(self) -> np.ndarray:
        return self.encode(self._as_dict(self.venv.reset()))

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        observations, rewards, dones, infos = self.venv.step_wait()
        ended = [info for info in infos if "terminal_observation" in info]
        last = [info["terminal_observation"] for info in ended]
        features = self.encode(self._as_dict(observations), last)
        for info, row in zip(ended, features[self.num_envs :], strict=True):
            info["terminal_observation"] = row
        return features[: self.num_envs], rewards, dones, infos

    def encode(
        self, observations: Mapping[str, np.ndarray], more: Sequence[Mapping[str, np.ndarray]] = ()
    ) -> np.ndarray:
        """Rows float32 [N + M, V + P] of N observations and M single ones."""
        parts = [self._features(self._joined(self.input_key, observations, more))]
        if self.state_dim:
            parts.append(self._joined(STATE, observations, more))
        return np.concatenate(parts, axis=1)

    def _joined(
        self, key: str, observations: Mapping[str, np.ndarray], more: Sequence[Mapping[str, np.ndarray]]
    ) -> np.ndarray:
        rows = observations[key]
        return np.concatenate([rows, np.stack([single[key] for single in more])]) if more else rows

    def _features(self, inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            frames = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
            tokens, out = self.encoder(self.encoder.preprocess(frames))  # type: ignore[operator]
            outputs = {"tokens": tokens, **out}
            if self.feature not in outputs:
                raise unknown_name("reinforce.feature", self.feature, outputs)
            return outputs[self.feature].flatten(1).float().cpu().numpy()

    @staticmethod
    def _as_dict(observations: Any) -> Mapping[str, np.ndarray]:
        assert isinstance(observations, Mapping), type(observations)
        return observations
