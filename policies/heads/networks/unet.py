"""The conditional 1-D U-Net of Diffusion Policy.

Legend: B batch, T moments of observation, V values of a moment, H chunk, A action dimensions, C channels, F condition.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.policies.heads.networks.time_embedding import LevelEmbedding, TimeEmbedding


class UNet(nn.Module):
    """Convolutions over the steps of a chunk; the noise level and all features modulate every block (FiLM).

    Source: Chi et al. 2023 (https://arxiv.org/abs/2303.04137), real-stanford/diffusion_policy
    `conditional_unet1d.py`, without its local conditioning; after Janner et al. 2022 (arXiv 2205.09991).

    Args:
        feature_dim, history, horizon, action_dim: V, T, H, A; H a multiple of 2^(levels - 1).
        embedding: of the noise level, built with its width.
        channels: C of every level, each after the first at half the steps of the one before.
        kernel_size: of the convolutions, odd.
        groups: of the group norms, a divisor of every channel count.
        time_width: of the embedding.
        scale: FiLM scales channels as well as shifting them.
    """

    def __init__(
        self,
        *,
        feature_dim: int,
        history: int,
        horizon: int,
        action_dim: int,
        embedding: type[LevelEmbedding | TimeEmbedding] = LevelEmbedding,
        channels: Sequence[int] = (512, 1024, 2048),
        kernel_size: int = 5,
        groups: int = 8,
        time_width: int = 128,
        scale: bool = True,
    ) -> None:
        super().__init__()
        _check(horizon, channels, kernel_size, groups)
        self.time = nn.Sequential(
            embedding(time_width),
            nn.Linear(time_width, 4 * time_width),
            nn.Mish(),
            nn.Linear(4 * time_width, time_width),
        )
        condition = time_width + history * feature_dim
        level = partial(Level, condition=condition, kernel_size=kernel_size, groups=groups, scale=scale)
        levels = list(zip([action_dim, *channels[:-1]], channels, strict=True))
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for number, (inputs, outputs) in enumerate(levels, start=1):
            shrink = nn.Conv1d(outputs, outputs, 3, 2, 1) if number < len(levels) else nn.Identity()
            self.down.append(level(inputs, outputs, resize=shrink))
        self.middle = level(channels[-1], channels[-1], resize=nn.Identity())
        for outputs, inputs in reversed(levels[1:]):
            # twice the channels: the level's skip connection comes along
            self.up.append(level(2 * inputs, outputs, resize=nn.ConvTranspose1d(outputs, outputs, 4, 2, 1)))
        self.last = nn.Sequential(
            ConvBlock(channels[0], channels[0], kernel_size=kernel_size, groups=groups),
            nn.Conv1d(channels[0], action_dim, 1),
        )

    def forward(
        self, actions: Float[Tensor, "B H A"], time: Shaped[Tensor, " B"], features: Float[Tensor, "B T V"]
    ) -> Float[Tensor, "B H A"]:
        """What the head trains for: noise, clean actions or velocity, at `time` (a level, or in [0, 1])."""
        condition = torch.cat([self.time(time), features.flatten(1)], dim=-1)
        maps = actions.transpose(1, 2)  # (B, A, H)
        skips = []
        for level in self.down:
            skip, maps = level(maps, condition)
            skips.append(skip)
        _, maps = self.middle(maps, condition)
        for level in self.up:
            _, maps = level(torch.cat([maps, skips.pop()], dim=1), condition)
        return self.last(maps).transpose(1, 2)


class Level(nn.Module):
    """Two blocks, then a change of the number of steps; gives the maps before and after that change."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        resize: nn.Module,
        condition: int,
        kernel_size: int,
        groups: int,
        scale: bool,
    ) -> None:
        super().__init__()
        block = partial(FiLMBlock, condition=condition, kernel_size=kernel_size, groups=groups, scale=scale)
        self.first, self.second, self.resize = block(inputs, outputs), block(outputs, outputs), resize

    def forward(
        self, maps: Float[Tensor, "B C H"], condition: Float[Tensor, "B F"]
    ) -> tuple[Float[Tensor, "B C2 H"], Float[Tensor, "B C2 H2"]]:
        maps = self.second(self.first(maps, condition), condition)
        return maps, self.resize(maps)


class ConvBlock(nn.Sequential):
    """Convolution, group norm, Mish."""

    def __init__(self, inputs: int, outputs: int, *, kernel_size: int, groups: int) -> None:
        convolution = nn.Conv1d(inputs, outputs, kernel_size, padding=kernel_size // 2)
        super().__init__(convolution, nn.GroupNorm(groups, outputs), nn.Mish())


class FiLMBlock(nn.Module):
    """Two convolutions around a scale and shift that the condition gives, and a residual connection."""

    def __init__(
        self, inputs: int, outputs: int, *, condition: int, kernel_size: int, groups: int, scale: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.first = ConvBlock(inputs, outputs, kernel_size=kernel_size, groups=groups)
        self.film = nn.Sequential(nn.Mish(), nn.Linear(condition, outputs * (2 if scale else 1)))
        self.second = ConvBlock(outputs, outputs, kernel_size=kernel_size, groups=groups)
        self.residual: nn.Module = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, maps: Float[Tensor, "B C H"], condition: Float[Tensor, "B F"]) -> Float[Tensor, "B C2 H"]:
        film = self.film(condition)[..., None]  # (B, C2 or 2 * C2, 1)
        hidden = self.first(maps)
        if self.scale:
            scale, shift = film.chunk(2, dim=1)
            hidden = scale * hidden + shift
        else:
            hidden = hidden + film
        return self.second(hidden) + self.residual(maps)


def _check(horizon: int, channels: Sequence[int], kernel_size: int, groups: int) -> None:
    if not channels:
        raise UsageError("channels must name at least one level, got none")
    factor = 2 ** (len(channels) - 1)
    if horizon % factor:
        near = max(factor, round(horizon / factor) * factor)
        raise UsageError(
            f"a U-Net of {len(channels)} levels needs a horizon that is a multiple of {factor}, got {horizon}: "
            f"take {near}, fewer channels, or network=transformer"
        )
    if kernel_size % 2 == 0:
        raise UsageError(f"kernel_size must be odd, got {kernel_size}")
    if bad := [width for width in channels if width % groups]:
        raise UsageError(f"channels must be multiples of groups={groups}, got {bad[0]}")
