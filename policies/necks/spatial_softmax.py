"""Where things are: expected coordinates. Legend: B batch, T moments, N tokens, D width, K keypoints, V = 2 K."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class SpatialSoftmax(nn.Module):
    """K maps over the grid of tokens; each becomes the mean position under its softmax, (x, y) in [-1, 1].

    x grows with the column and y with the row; -1 and 1 are the centres of the outermost cells.

    Sources: Finn et al. 2016 (Deep spatial autoencoders, https://arxiv.org/abs/1509.06113);
    robomimic `SpatialSoftmax` for the defaults.

    Args:
        grid: rows and columns of the tokens, N = rows * columns.
        width: D.
        keypoints: K; None takes the tokens' D values as maps, without a linear layer.
        temperature: what maps are divided by.
        learn_temperature: it starts there and is trained, by its logarithm.
    """

    def __init__(
        self,
        *,
        grid: tuple[int, int],
        width: int,
        keypoints: int | None = 32,
        temperature: float = 1.0,
        learn_temperature: bool = False,
    ) -> None:
        super().__init__()
        if temperature <= 0:
            raise UsageError(f"temperature must be above 0, got {temperature}")
        self.grid, self.width = grid, width
        self.maps: nn.Module = nn.Linear(width, keypoints) if keypoints else nn.Identity()
        self.output_dim = 2 * (keypoints or width)
        start = torch.tensor(math.log(temperature))
        self.log_temperature: Tensor
        if learn_temperature:
            self.log_temperature = nn.Parameter(start)
        else:
            self.register_buffer("log_temperature", start, persistent=False)
        y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in grid), indexing="ij")
        self.positions: Tensor
        self.register_buffer("positions", torch.stack([x.flatten(), y.flatten()], dim=1), persistent=False)  # (N, 2)

    def forward(self, features: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T V"]:
        """x and y of every keypoint in turn."""
        if features.ndim != 4 or features.shape[2:] != (len(self.positions), self.width):
            raise UsageError(
                f"features: expected [B, T, N={len(self.positions)}, D={self.width}] on a grid of "
                f"{self.grid[0]}x{self.grid[1]}, got {list(features.shape)}"
            )
        attention = (self.maps(features) / self.log_temperature.exp()).softmax(dim=2)  # (B, T, N, K)
        return (attention.transpose(2, 3) @ self.positions).flatten(2)  # (B, T, 2K)


NECK = SpatialSoftmax
