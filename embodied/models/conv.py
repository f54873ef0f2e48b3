"""The small conv net of learning from scratch. Legend: B batch, S image size, N cells of the map, D width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

KERNELS = (7, 5, 3, 3, 3, 3)


class ConvNet(nn.Module):
    """Six stride-2 convolutions with 32 channels and ReLU, flatten, LayerNorm, Linear.

    Source: Hansen et al. 2023 (arXiv 2212.05749), the released `TDMPC_Encoder`, there at 224 px without padding.

    Args:
        image_size: S, at least 32.
        width: D of the output vector.
    """

    def __init__(self, *, image_size: int, width: int = 128, channels: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        side = image_size
        for number, kernel in enumerate(KERNELS):
            # Departure: half-kernel padding, since at 84 px the unpadded maps vanish before the sixth convolution.
            layers += [nn.Conv2d(3 if number == 0 else channels, channels, kernel, stride=2, padding=kernel // 2)]
            layers += [nn.ReLU()]
            side = (side - 1) // 2 + 1
        self.convolutions = nn.Sequential(*layers)
        self.grid = (side, side)
        self.head = nn.Sequential(nn.LayerNorm(channels * side**2), nn.Linear(channels * side**2, width))

    def forward(self, images: Float[Tensor, "B 3 S S"]) -> tuple[Float[Tensor, "B N C"], dict[str, Tensor]]:
        maps = self.convolutions(images)  # (B, C, side, side)
        return maps.flatten(2).transpose(1, 2), {"pooled": self.head(maps.flatten(1))}
