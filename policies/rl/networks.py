"""Networks of agents that read features, for stable-baselines3's `features_extractor_class`."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium.spaces import Box
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn


class ProjectedFeatures(BaseFeaturesExtractor):
    """Features and proprioception, each through a linear layer, side by side.

    Source: MVP (Xiao et al. 2022, arXiv 2203.06173; ir413/mvp `mvp/ppo/actor_critic.py`): 128 each. MVP trains the
    encoder's last LayerNorm along with the agent; here a LayerNorm of its own stands before the projection
    (`normalise`), which is the same function of features that are taken before that layer.

    Args:
        observation_space: Box [V + P].
        feature_dim: V, the first part of an observation.
        width: of each projection.
        normalise: LayerNorm on the features; off for the simulator's state, where scales mean something.
    """

    def __init__(self, observation_space: Box, *, feature_dim: int, width: int = 128, normalise: bool = True) -> None:
        state_dim = int(observation_space.shape[0]) - feature_dim
        super().__init__(observation_space, features_dim=width * (2 if state_dim else 1))
        self._split = [feature_dim, state_dim]
        norm: nn.Module = nn.LayerNorm(feature_dim) if normalise else nn.Identity()
        self.features = nn.Sequential(norm, nn.Linear(feature_dim, width))
        self.state = nn.Linear(state_dim, width) if state_dim else None

    def forward(self, observations: Tensor) -> Tensor:
        """float [B, V + P] to [B, width] or [B, 2 * width]."""
        features, state = observations.split(self._split, dim=1)
        projected = [self.features(features)]
        if self.state is not None:
            projected.append(self.state(state))
        return torch.cat(projected, dim=1)


def mvp_policy_arguments(*, feature_dim: int, normalise: bool, width: int = 128) -> dict[str, Any]:
    """`policy_kwargs` of MVP's actor and critic: [256, 128, 64] with SELU each, orthogonal weights, std 1 at first."""
    return {
        "features_extractor_class": ProjectedFeatures,
        "features_extractor_kwargs": {"feature_dim": feature_dim, "width": width, "normalise": normalise},
        "share_features_extractor": False,
        "net_arch": {"pi": [256, 128, 64], "vf": [256, 128, 64]},
        "activation_fn": nn.SELU,
        "ortho_init": True,
        "log_std_init": 0.0,
    }
