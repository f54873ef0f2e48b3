"""Convolutions over the grid of tokens. Legend: B batch, T moments, N tokens, D width, C channels, O output values."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class ConvNeck(nn.Module):
    """Theia's spatial neck: a grid of tokens per frame, frames stacked on channels, three convolutions, one vector.

    Source: Shang et al. 2024 (arXiv 2407.20179), bdaiinstitute/theia `cortexbench/policy_heads.py`:
    Conv(k4 s2 p1) LN ReLU, Conv(k3 s2) LN ReLU, Conv(k3) LN ReLU on a 14x14 grid.

    Departures, for grids other than 14x14 and for two CPU cores:
        - where a map is too small the second convolution keeps its stride at 1 and the third kernel shrinks to the map
        - a linear `bottleneck` per token comes first (None leaves it out), since the paper's first convolution is
          over nine tenths of the cost
    """

    def __init__(
        self, grid: tuple[int, int], width: int, *, frames: int = 3, channels: int = 256, bottleneck: int | None = 64
    ) -> None:
        super().__init__()
        if min(grid) < 8:
            raise UsageError(f"policy.head=conv needs a token grid of at least 8x8, got {grid[0]}x{grid[1]}")
        self.grid = grid
        self.project: nn.Module = nn.Linear(width, bottleneck) if bottleneck else nn.Identity()
        inputs = (bottleneck or width) * frames
        half = [side // 2 for side in grid]
        stride = 2 if min(half) >= 6 else 1
        second = [(side - 3) // stride + 1 for side in half]
        kernel = [min(3, side) for side in second]
        third = [side - size + 1 for side, size in zip(second, kernel, strict=True)]
        self.network = nn.Sequential(
            nn.Conv2d(inputs, channels, kernel_size=4, stride=2, padding=1),
            nn.LayerNorm([channels, *half]),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=3, stride=stride),
            nn.LayerNorm([channels, *second]),
            nn.ReLU(),
            nn.Conv2d(channels, channels, kernel_size=(kernel[0], kernel[1])),
            nn.LayerNorm([channels, *third]),
            nn.ReLU(),
            nn.Flatten(),
        )
        self.output_dim = channels * third[0] * third[1]

    def forward(self, tokens: Float[Tensor, "B T N D"]) -> Float[Tensor, "B O"]:
        rows, columns = self.grid
        tokens = self.project(tokens)  # (B, T, N, C)
        images = tokens.unflatten(2, (rows, columns)).permute(0, 1, 4, 2, 3).flatten(1, 2)  # (B, T*C, rows, columns)
        return self.network(images)


class Spatial(nn.Module):
    """`ConvNeck` for features [B, T, N, D], the frames fused as Theia does it: one moment comes out, [B, 1, O].

    Args:
        grid: rows and columns of the tokens, N = rows * columns, at least 8 x 8.
        width: D.
        history: T.
        channels, bottleneck: see `ConvNeck`.
    """

    def __init__(
        self, *, grid: tuple[int, int], width: int, history: int, channels: int = 256, bottleneck: int | None = 64
    ) -> None:
        super().__init__()
        self.expected = (history, grid[0] * grid[1], width)
        self.network = ConvNeck(grid, width, frames=history, channels=channels, bottleneck=bottleneck)
        self.output_dim = self.network.output_dim

    def forward(self, features: Float[Tensor, "B T N D"]) -> Float[Tensor, "B 1 O"]:
        if features.shape[1:] != self.expected:
            history, tokens, width = self.expected
            raise UsageError(f"features: expected [B, T={history}, N={tokens}, D={width}], got {list(features.shape)}")
        return self.network(features)[:, None]


NECK = Spatial
FUSES_HISTORY = True
