"""A trained agent as a policy of this project: raw observations in, actions out, rebuilt from its artifact alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

import numpy as np
import torch
from gymnasium.spaces import Box, Space
from torch import Tensor, nn

from embodied.core.errors import MissingExtraError, UsageError
from embodied.core.protocols import STATE
from embodied.encoders.modality import input_keys, looks
from embodied.policies.rl.frames import frames_space, seen_frames


class RLPolicy(nn.Module):
    """The actor of an agent, on its frozen encoder or with one that it learned; it takes the mean action.

    Args:
        encoder: frozen; of an agent that reads frames itself, one that is not used.
        method: module of the agent, `ppo`, `sac`, ...
        network: `policy_kwargs` settings of the agent, as JSON: see its `network`.
        settings: of the agent.
        camera: whose frames the encoder reads.
        feature: the encoder's output.
        feature_dim: V, of the flattened output; 0 for an agent that reads frames itself, or sees nothing.
        frames_shape: [3 T, S, S] of what such an agent reads.
        proprioception_dim: P, 0 to ignore `observation.state`.
        action_low, action_high: [A].
    """

    def __init__(
        self,
        encoder: nn.Module,
        *,
        method: str,
        settings: Mapping[str, Any],
        camera: str,
        feature: str,
        feature_dim: int,
        proprioception_dim: int,
        action_low: Sequence[float],
        action_high: Sequence[float],
        frames_shape: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.feature, self.feature_dim = feature, feature_dim
        self.proprioception_dim, self.action_dim = proprioception_dim, len(action_low)
        (self.input_key,) = input_keys(encoder, [camera])
        module = agent_module(method)
        agent = module.AGENT(**settings)
        self.frames_shape = None if frames_shape is None else tuple(frames_shape)
        space: Space[Any]
        if self.frames_shape is None:
            space = Box(-np.inf, np.inf, (feature_dim + proprioception_dim,), np.float32)
            network = agent.network(feature_dim=feature_dim, normalise=looks(encoder))
        else:
            space = frames_space(self.frames_shape, proprioception_dim)
            network = agent.frames_network()
        actions = Box(np.asarray(action_low, np.float32), np.asarray(action_high, np.float32))
        self.agent = module.POLICY_CLASS(space, actions, lambda _: 0.0, **network)
        self.action_low: Tensor
        self.register_buffer("action_low", torch.from_numpy(actions.low), persistent=False)
        self.action_high: Tensor
        self.register_buffer("action_high", torch.from_numpy(actions.high), persistent=False)

    @property
    def history(self) -> int:
        """T, moments of a stack of frames; 1 for an agent on features, which are of the present."""
        return 1 if self.frames_shape is None else self.frames_shape[0] // 3

    def initial(self, batch_size: int) -> dict[str, Tensor]:
        """An agent remembers nothing."""
        return {}

    @torch.inference_mode()
    def act(self, carry: dict[str, Tensor], observation: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """One action per episode, as a chunk [B, 1, A] inside the bounds."""
        return carry, self.decide(self.see(observation))

    def see(self, observation: Mapping[str, Tensor]) -> Any:
        """What the agent was trained on: features [B, V + P], or what `seen_frames` gives."""
        if self.frames_shape is not None:
            return seen_frames(
                observation,
                key=self.input_key,
                image_size=self.frames_shape[-1],
                proprioception_dim=self.proprioception_dim,
            )
        tokens, out = self.encoder(self.encoder.preprocess(observation[self.input_key]))  # type: ignore[operator]
        features = (tokens if self.feature == "tokens" else out[self.feature]).flatten(1).float()
        return torch.cat([features, observation[STATE]], dim=1) if self.proprioception_dim else features

    def decide(self, seen: Any) -> Tensor:
        """The mean action for what `see` gives, as a chunk [B, 1, A] inside the bounds."""
        action = self.agent._predict(seen, deterministic=True)
        if self.agent.squash_output:
            action = self.action_low + 0.5 * (action + 1) * (self.action_high - self.action_low)
        return action.clamp(self.action_low, self.action_high)[:, None]  # PPO's Gaussian knows no bounds

    def trained_tensors(self) -> dict[str, Tensor]:
        """What a checkpoint holds: everything but the frozen encoder."""
        return {name: tensor for name, tensor in self.state_dict().items() if not name.startswith("encoder.")}

    def load_trained_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """The inverse of `trained_tensors`; a checkpoint of another policy is refused."""
        expected = self.trained_tensors()
        differing = [
            name
            for name in sorted(expected.keys() | tensors.keys())
            if name not in expected or name not in tensors or expected[name].shape != tensors[name].shape
        ]
        if differing:
            raise UsageError(f"the checkpoint belongs to another policy: it differs in {', '.join(differing[:5])}")
        self.load_state_dict(dict(tensors), strict=False)


def agent_module(method: str) -> Any:
    """The module of an agent.

    Raises:
        MissingExtraError: stable-baselines3 is not installed.
    """
    try:
        return import_module(f"embodied.policies.rl.{method}")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("stable_baselines3"):
            raise MissingExtraError("stable-baselines3", "rl") from error
        raise
