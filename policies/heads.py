"""Heads that map encoder features to an action.

Legend: B batch, T frames of history, N tokens, D width, V vector width, P proprioception, A action.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class BatchNormMLP(nn.Module):
    """The policy network of VC-1 / CortexBench: BatchNorm on the whole input, then an MLP.

    Source: Majumdar et al. 2023 (arXiv 2303.18240), facebookresearch/eai-vc with aravindr93/mjrl `fc_network.py`:
    BatchNorm1d -> Linear 256 -> 256 -> 256 -> action, ReLU, last layer's weights times 1e-2.
    """

    def __init__(self, input_dim: int, action_dim: int, *, hidden: Sequence[int] = (256, 256, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm1d(input_dim)]
        width = input_dim
        for size in hidden:
            layers += [nn.Linear(width, size), nn.ReLU()]
            width = size
        last = nn.Linear(width, action_dim)
        with torch.no_grad():
            last.weight.mul_(1e-2)
        self.network = nn.Sequential(*layers, last)

    def forward(self, inputs: Float[Tensor, "B I"]) -> Float[Tensor, "B A"]:
        return self.network(inputs)


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


def flare(features: Float[Tensor, "B T V"]) -> Float[Tensor, "B TV"]:
    """Frame differences and the last frame, as CortexBench fuses history: [e1-e0, e2-e1, ..., e_last].

    Source: Shang et al. 2021 (Flare, arXiv 2101.01857); eai-vc `fuse_embeddings_flare`.
    """
    differences = features[:, 1:] - features[:, :-1]  # (B, T-1, V)
    return torch.cat([differences.flatten(1), features[:, -1]], dim=1)
