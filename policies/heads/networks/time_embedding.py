"""Sine-cosine embeddings of the noise level. Legend: B batch, D width."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class LevelEmbedding(nn.Module):
    """For whole levels 0..K-1: frequencies from 1 down to 1/10000, [sin, cos] (Diffusion Policy's).

    Args:
        width: D, even and at least 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        _check(width)
        half = width // 2
        self.frequencies: Tensor
        steps = torch.arange(half) * -(math.log(10000) / (half - 1))
        self.register_buffer("frequencies", steps.exp(), persistent=False)

    def forward(self, level: Tensor) -> Float[Tensor, "B D"]:
        angle = level[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class TimeEmbedding(nn.Module):
    """For times in [0, 1]: periods from 4e-3 to 4, evenly spaced in their logarithm, [sin, cos] (pi0's).

    Args:
        width: D, even and at least 4.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        _check(width)
        fraction = torch.linspace(0.0, 1.0, width // 2, dtype=torch.float64)
        self.frequencies: Tensor
        periods = 4e-3 * (4.0 / 4e-3) ** fraction
        self.register_buffer("frequencies", (2 * math.pi / periods).float(), persistent=False)

    def forward(self, time: Tensor) -> Float[Tensor, "B D"]:
        angle = time[:, None] * self.frequencies
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


def _check(width: int) -> None:
    if width < 4 or width % 2:
        raise UsageError(f"the width of a time embedding must be even and at least 4, got {width}")
