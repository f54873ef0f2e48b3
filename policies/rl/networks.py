"""Networks of agents, for stable-baselines3's policies: on features, or with an encoder that learns inside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import torch
from gymnasium.spaces import Box, Dict, Space
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.policies.rl.drqv2_networks import LfSEncoder, random_shift
from embodied.policies.rl.frames import BODY, FRAMES

Augmentation = Literal["consistency", "frames", "none"]


class Standardise(nn.Module):
    """Values minus their mean over their standard deviation, cut at 10; the identity until something was taken in.

    What stable-baselines3's VecNormalize does, as a part of the network: policy files and checkpoints then hold it.
    The statistics stand still within an iteration, so that an update starts from the very policy that acted.
    """

    mean: Tensor
    variance: Tensor
    count: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("variance", torch.ones(width))
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        """float [B, D] to the same, in [-10, 10] once anything was taken in."""
        if not self.count:
            return values
        return ((values - self.mean) / (self.variance + 1e-8).sqrt()).clamp(-10, 10)

    @torch.no_grad()
    def take_in(self, rows: np.ndarray) -> None:
        """Merge mean and variance of rows [B, D] with those of all before (Chan et al. 1979)."""
        values = torch.as_tensor(rows, dtype=torch.float32, device=self.mean.device)
        added, total = len(values), float(self.count) + len(values)
        change = values.mean(0) - self.mean
        share = added / total
        spread = (
            self.variance * (1 - share) + values.var(0, correction=0) * share + change.square() * share * (1 - share)
        )
        self.variance.copy_(spread)
        self.mean.add_(change * share)
        self.count.fill_(total)


class ProjectedFeatures(BaseFeaturesExtractor):
    """Features and proprioception, each through a linear layer, side by side.

    Source: MVP (Xiao et al. 2022, arXiv 2203.06173; ir413/mvp `mvp/ppo/actor_critic.py`): 128 each. MVP trains the
    encoder's last LayerNorm along with the agent; here a LayerNorm of its own stands before the projection
    (`normalise`), which is the same function of features that are taken before that layer.

    Args:
        observation_space: Box [V + P].
        feature_dim: V, the first part of an observation; 0 for an agent that has proprioception alone.
        width: of each projection.
        normalise: LayerNorm on the features; off for the simulator's state, where scales mean something.
        standardise: see `Standardise`; every value of an observation by itself, before anything else.
    """

    def __init__(
        self,
        observation_space: Box,
        *,
        feature_dim: int,
        width: int = 128,
        normalise: bool = True,
        standardise: bool = False,
    ) -> None:
        state_dim = int(observation_space.shape[0]) - feature_dim
        super().__init__(observation_space, features_dim=width * (bool(feature_dim) + bool(state_dim)))
        self._split = [feature_dim, state_dim]
        norm: nn.Module = nn.LayerNorm(feature_dim) if normalise else nn.Identity()
        self.features = nn.Sequential(norm, nn.Linear(feature_dim, width)) if feature_dim else None
        self.state = nn.Linear(state_dim, width) if state_dim else None
        self.standardise = Standardise(feature_dim + state_dim) if standardise else None

    def forward(self, observations: Tensor) -> Tensor:
        """float [B, V + P] to [B, width] or [B, 2 * width]."""
        if self.standardise is not None:
            observations = self.standardise(observations)
        parts = observations.split(self._split, dim=1)
        layers = (self.features, self.state)
        return torch.cat([layer(part) for layer, part in zip(layers, parts, strict=True) if layer is not None], dim=1)

    def take_in(self, observations: np.ndarray) -> None:
        """Statistics of observations [B, V + P], if they are kept."""
        if self.standardise is not None:
            self.standardise.take_in(observations)


class LearnedFeatures(BaseFeaturesExtractor):
    """A conv net that learns with the agent, a linear layer on proprioception, and a trunk on both.

    Source: Hansen et al. 2023 (arXiv 2212.05749; gemcollector/learning-from-scratch `mvp/ppo/actor_critic.py`,
    `Simple_PixelActorCritic`): the net of `models.conv.ConvNet`, 128 values for proprioception, then a linear layer,
    LayerNorm and tanh. Departures: actor and critic share the trunk, there each has its own; a stack of frames is
    encoded frame by frame, there is one.

    Args:
        observation_space: see `frames.frames_space`.
        width: of the layer on proprioception.
        standardise: proprioception, see `Standardise`.
    """

    def __init__(self, observation_space: Space[Any], *, width: int = 128, standardise: bool = False) -> None:
        has_body = isinstance(observation_space, Dict)
        frames = observation_space[FRAMES] if isinstance(observation_space, Dict) else observation_space
        channels, size, _ = frames.shape or ()
        encoder = LfSEncoder(channels=channels, image_size=size)
        joint = encoder.width + width * has_body
        super().__init__(observation_space, features_dim=joint)
        self.encoder = encoder
        body = (observation_space[BODY].shape or (0,))[0] if isinstance(observation_space, Dict) else 0
        self.state = nn.Linear(body, width) if has_body else None
        self.standardise = Standardise(body) if has_body and standardise else None
        self.trunk = nn.Sequential(nn.Linear(joint, joint), nn.LayerNorm(joint), nn.Tanh())

    def forward(self, observations: Any) -> Tensor:
        """Frames [B, 3 T, S, S] in [0, 255], or a dict with them, to [B, 128 T + width]."""
        if self.state is None:
            return self.trunk(self.encoder(observations))
        values = observations[BODY]
        if self.standardise is not None:
            values = self.standardise(values)
        return self.trunk(torch.cat([self.encoder(observations[FRAMES]), self.state(values)], dim=1))

    def take_in(self, observations: Mapping[str, np.ndarray]) -> None:
        """Statistics of what the body said, if they are kept."""
        if self.standardise is not None:
            self.standardise.take_in(observations[BODY])


class ActorCritic(ActorCriticPolicy):
    """stable-baselines3's, with random shifts in updates for an agent that reads frames.

    Source: Raileanu et al. 2020 (DrAC, https://arxiv.org/abs/2006.12862) as Hansen et al.'s code has it: the policy's
    gradient comes from the frames as they were, and a term is added to the loss (Eq. 5's G_V, weight 1)::

        G_V = mean (V(s) - V(shifted s))^2,    V(s) taken as a constant

    Departure from DrAC, as there: no such term for the actor.

    Args:
        shift: pixels by which a frame is moved at most.
        augmentation: `consistency` is the above; `frames`: everything is computed from shifted frames (RAD, Laskin et
            al. 2020, https://arxiv.org/abs/2004.14990), whose ratio to the policy that acted is then not 1 at first;
            `none`.
        arguments: of stable-baselines3's class.
    """

    def __init__(self, *positional: Any, shift: int = 0, augmentation: Augmentation = "none", **arguments: Any) -> None:
        self._shift, self._augmentation = shift, augmentation
        super().__init__(*positional, **arguments)

    def evaluate_actions(self, obs: Any, actions: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Values [B, 1], log probabilities [B] and entropy [B] of an update's minibatch."""
        if self._augmentation == "frames":
            obs = self._shifted(obs)
        values, log_prob, entropy = super().evaluate_actions(obs, actions)
        if self._augmentation == "consistency":
            difference = F.mse_loss(self.predict_values(self._shifted(obs)), values.detach())
            values = _WithLoss.apply(values, difference)
        return values, log_prob, entropy

    def take_in(self, observations: Any) -> None:
        """Let the layers that standardise see the observations of an iteration, arrays [B, ...]."""
        for part in self.modules():
            if isinstance(part, ProjectedFeatures | LearnedFeatures):
                part.take_in(observations)

    def _shifted(self, obs: Any) -> Any:
        if isinstance(obs, dict):
            return {**obs, FRAMES: random_shift(obs[FRAMES].float(), self._shift)}
        return random_shift(obs.float(), self._shift)


class _WithLoss(torch.autograd.Function):
    """Passes values on; when their gradient comes back, that of a further loss with weight 1 goes with it.

    stable-baselines3 computes PPO's loss in one piece and has no place for a term of one's own.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, loss: Tensor) -> Tensor:
        ctx.one = torch.ones_like(loss)
        return values.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        return gradient, ctx.one


def mvp_policy_arguments(
    *, feature_dim: int, normalise: bool, width: int = 128, standardise: bool = False
) -> dict[str, Any]:
    """`policy_kwargs` of MVP's actor and critic: [256, 128, 64] with SELU each, orthogonal weights, std 1 at first."""
    layers = {"feature_dim": feature_dim, "width": width, "normalise": normalise, "standardise": standardise}
    return {
        "features_extractor_class": ProjectedFeatures,
        "features_extractor_kwargs": layers,
        "share_features_extractor": False,
        "net_arch": {"pi": [256, 128, 64], "vf": [256, 128, 64]},
        "activation_fn": nn.SELU,
        "ortho_init": True,
        "log_std_init": 0.0,
    }


def scratch_policy_arguments(
    *, shift: int, augmentation: Augmentation, width: int = 128, standardise: bool = False
) -> dict[str, Any]:
    """`policy_kwargs` of Hansen et al.'s: MVP's layers with ReLU on features that actor and critic learn together."""
    return {
        "features_extractor_class": LearnedFeatures,
        "features_extractor_kwargs": {"width": width, "standardise": standardise},
        "share_features_extractor": True,
        "net_arch": {"pi": [256, 128, 64], "vf": [256, 128, 64]},
        "activation_fn": nn.ReLU,
        "ortho_init": True,
        "normalize_images": False,  # the encoder scales them
        "shift": shift,
        "augmentation": augmentation,
    }
