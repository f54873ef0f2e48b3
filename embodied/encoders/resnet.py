"""A residual network as an encoder: ImageNet's, or R3M's."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from embodied.encoders.preprocessing import Normalize
from embodied.models.resnet import ResNet, map_side


class ResNetEncoder(nn.Module):
    """A `ResNet` that takes frames, with ImageNet's mean and standard deviation.

    Args:
        network: "resnet18", "resnet34" or "resnet50".
        image_size: S.
    """

    modality = "image"
    trainable = False

    def __init__(self, *, network: str = "resnet18", image_size: int = 224) -> None:
        super().__init__()
        self._arguments = {"network": network, "image_size": image_size}
        self.network = ResNet(network)
        self.normalize = Normalize(image_size)
        self.width = self.network.width
        self.grid = (map_side(image_size), map_side(image_size))

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor, *, layers: bool = False) -> tuple[Tensor, dict[str, Tensor]]:
        """Cells of the last map [B, N, D], `pooled` [B, D]; with `layers` those of each stage as `layer1` to `4`."""
        return self.network(images, layers=layers)

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.resnet.ResNetEncoder", **self._arguments}
