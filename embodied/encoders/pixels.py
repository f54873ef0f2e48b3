"""The raw-pixel baseline."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F


class PixelEncoder(nn.Module):
    """A frame shrunk to `size` x `size` RGB values in [-1, 1]; `pooled` is all of them in one vector."""

    modality = "image"
    trainable = False

    def __init__(self, *, size: int = 16) -> None:
        super().__init__()
        self.size, self.width, self.grid = size, 3, (size, size)

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to float [B, 3, size, size], each value the mean of its area."""
        images = frames.permute(0, 3, 1, 2).float() / 127.5 - 1
        return F.adaptive_avg_pool2d(images, self.size)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, size * size, 3]; `pooled` [B, size * size * 3]."""
        tokens = images.flatten(2).transpose(1, 2)
        return tokens, {"pooled": tokens.flatten(1)}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.pixels.PixelEncoder", "size": self.size}
