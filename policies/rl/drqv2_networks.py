"""DrQ-v2's networks and its augmentation. Legend: B batch, T frames of a stack, C = 3 T channels, S side, V width."""

from __future__ import annotations

from collections.abc import Callable

import torch
from gymnasium.spaces import Box
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import unknown_name
from embodied.models.conv import ConvNet

ENCODERS = ("drqv2", "lfs")


class DrQEncoder(nn.Module):
    """Four convolutions 3x3 with 32 channels, the first with stride 2, ReLU: uint8 [B, C, S, S] to float [B, V].

    Args:
        channels: C, three per stacked frame.
        image_size: S.
    """

    def __init__(self, *, channels: int, image_size: int) -> None:
        super().__init__()
        sizes = [(channels, 32, 2), (32, 32, 1), (32, 32, 1), (32, 32, 1)]
        self.network = nn.Sequential(
            *(layer for inner, outer, step in sizes for layer in (nn.Conv2d(inner, outer, 3, step), nn.ReLU())),
            nn.Flatten(),
        )
        self.width = 32 * ((image_size - 3) // 2 + 1 - 6) ** 2

    def forward(self, frames: Tensor) -> Tensor:
        return self.network(frames / 255 - 0.5)


class LfSEncoder(nn.Module):
    """The six convolutions of `models.conv.ConvNet`, on every frame of a stack: uint8 [B, 3 T, S, S] to [B, 128 T].

    As Hansen et al.'s released code has it; their text says no more than a shallow ConvNet.
    """

    def __init__(self, *, channels: int, image_size: int) -> None:
        super().__init__()
        self.frames = channels // 3
        self.network = ConvNet(image_size=image_size)
        self.width = 128 * self.frames

    def forward(self, frames: Tensor) -> Tensor:
        single = frames.unflatten(1, (self.frames, 3)).flatten(0, 1)  # (B*T, 3, S, S)
        return self.network(single / 255 - 0.5)[1]["pooled"].unflatten(0, (-1, self.frames)).flatten(1)


class DrQPolicy(BasePolicy):
    """Encoder, actor, two critics and their slow copies.

    Actor and critics each look at the encoder through a linear layer, LayerNorm and tanh.

    Args:
        observation_space: uint8 [C, S, S].
        action_space: Box [A].
        lr_schedule: of all optimisers.
        encoder: a name of `ENCODERS`.
        trunk: width of the linear layers.
        hidden: width of the two layers after each.
    """

    def __init__(
        self,
        observation_space: Box,
        action_space: Box,
        lr_schedule: Callable[[float], float],
        *,
        encoder: str = "drqv2",
        trunk: int = 50,
        hidden: int = 1024,
    ) -> None:
        super().__init__(observation_space, action_space, squash_output=True, normalize_images=False)
        if encoder not in ENCODERS:
            raise unknown_name("policy.encoder", encoder, ENCODERS)
        channels, size, _ = observation_space.shape
        kind = DrQEncoder if encoder == "drqv2" else LfSEncoder
        self.encoder = kind(channels=channels, image_size=size)
        actions = int(action_space.shape[0])
        self.actor = _Actor(self.encoder.width, actions, trunk=trunk, hidden=hidden)
        self.critic = _Critics(self.encoder.width, actions, trunk=trunk, hidden=hidden)
        self.critic_target = _Critics(self.encoder.width, actions, trunk=trunk, hidden=hidden)
        for module in (self.encoder, self.actor, self.critic):
            module.apply(_orthogonal)
        self.critic_target.load_state_dict(self.critic.state_dict())
        rate = lr_schedule(1.0)
        self.actor.optimizer = torch.optim.Adam(self.actor.parameters(), lr=rate)
        parts = [*self.encoder.parameters(), *self.critic.parameters()]
        self.critic.optimizer = torch.optim.Adam(parts, lr=rate)
        self.noise: Callable[[], float] = lambda: 0.0  # standard deviation of what is added to actions

    def forward(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        return self._predict(observation, deterministic=deterministic)

    def _predict(self, observation: Tensor, deterministic: bool = False) -> Tensor:
        action = self.actor(self.encoder(observation.float()))
        if not deterministic:
            action = (action + torch.randn_like(action) * self.noise()).clamp(-1, 1)
        return action


class _Actor(nn.Module):
    optimizer: torch.optim.Optimizer

    def __init__(self, width: int, actions: int, *, trunk: int, hidden: int) -> None:
        super().__init__()
        self.network = nn.Sequential(_trunk(width, trunk), *_layers(trunk, hidden, actions), nn.Tanh())

    def forward(self, features: Tensor) -> Tensor:
        return self.network(features)


class _Critics(nn.Module):
    optimizer: torch.optim.Optimizer

    def __init__(self, width: int, actions: int, *, trunk: int, hidden: int) -> None:
        super().__init__()
        self.trunk = _trunk(width, trunk)
        self.first = nn.Sequential(*_layers(trunk + actions, hidden, 1))
        self.second = nn.Sequential(*_layers(trunk + actions, hidden, 1))

    def forward(self, features: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        inputs = torch.cat([self.trunk(features), action], dim=1)
        return self.first(inputs), self.second(inputs)


def _trunk(width: int, trunk: int) -> nn.Module:
    return nn.Sequential(nn.Linear(width, trunk), nn.LayerNorm(trunk), nn.Tanh())


def _layers(inputs: int, hidden: int, outputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, outputs)]


def _orthogonal(module: nn.Module) -> None:
    if isinstance(module, (nn.Linear, nn.Conv2d)):
        nn.init.orthogonal_(module.weight, nn.init.calculate_gain("relu") if isinstance(module, nn.Conv2d) else 1.0)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def random_shift(frames: Tensor, pad: int) -> Tensor:
    """Each picture moved by up to `pad` pixels, between pixels by interpolation: float [B, C, S, S] to the same.

    The border is repeated; drawn from the global generator, as the algorithm's other randomness is.
    """
    if pad == 0:
        return frames
    count, _, size, _ = frames.shape
    padded = F.pad(frames, (pad,) * 4, mode="replicate")
    side = size + 2 * pad
    centres = torch.linspace(-1 + 1 / side, 1 - 1 / side, side, device=frames.device)[:size]
    x, y = centres.expand(size, size), centres[:, None].expand(size, size)
    shift = torch.randint(0, 2 * pad + 1, (count, 1, 1, 2), device=frames.device) * (2 / side)
    return F.grid_sample(padded, torch.stack([x, y], dim=-1) + shift, padding_mode="zeros", align_corners=False)
