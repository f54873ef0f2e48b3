"""Our vision transformer as an encoder: the network with its preprocessing."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from embodied.encoders.preprocessing import Normalize
from embodied.models.vit import VisionTransformer


class ViTEncoder(nn.Module):
    """A `VisionTransformer` that takes frames; arguments as there. ImageNet mean and std, as MAE uses them."""

    modality = "image"
    trainable = False

    def __init__(
        self, *, image_size: int = 128, patch_size: int = 16, width: int = 192, depth: int = 6, heads: int = 3
    ) -> None:
        super().__init__()
        self.vit = VisionTransformer(
            image_size=image_size, patch_size=patch_size, width=width, depth=depth, heads=heads
        )
        self._arguments = {
            "image_size": image_size,
            "patch_size": patch_size,
            "width": width,
            "depth": depth,
            "heads": heads,
        }
        self.normalize = Normalize(image_size)
        self.width, self.grid = width, self.vit.grid

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor, keep_ids: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
        """Patch tokens [B, N, D]; `pooled` and `cls` [B, D]."""
        return self.vit(images, keep_ids)

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.vit.ViTEncoder", **self._arguments}
