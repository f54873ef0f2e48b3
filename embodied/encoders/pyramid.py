"""VQ-GAN's convolutional encoder as an image encoder. Legend: B batch, S image size, N places, D width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.encoders.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Normalize
from embodied.models.pyramid import PyramidDown


class PyramidEncoder(nn.Module):
    """A `PyramidDown` that takes frames; places of its coarsest map are its tokens.

    Args:
        image_size: S: frames of another size are resized to it.
        patch_size: how often the sides are divided: a place stands for so many pixels square.
        width, depth, stem: see `PyramidDown`.
        mean, std: of the pixels in [0, 1], per channel.

    Raises:
        UsageError: the numbers do not go together.
    """

    modality = "image"
    trainable = False

    def __init__(
        self,
        *,
        image_size: int = 128,
        patch_size: int = 16,
        width: int = 128,
        depth: int = 1,
        stem: int = 1,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise UsageError(f"image_size must be a multiple of patch_size={patch_size}, got {image_size}")
        self.pyramid = PyramidDown(factor=patch_size, width=width, depth=depth, stem=stem)
        self.normalize = Normalize(image_size, mean, std)
        self.width, self.grid = width, (image_size // patch_size,) * 2
        self._arguments: dict[str, Any] = {
            "image_size": image_size,
            "patch_size": patch_size,
            "width": width,
            "depth": depth,
            "stem": stem,
            "mean": [float(value) for value in mean],
            "std": [float(value) for value in std],
        }

    def preprocess(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to normalised float [B, 3, S, S]."""
        return self.normalize(frames)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, N, D] in raster order; `pooled` [B, D], their mean."""
        tokens = self.pyramid(images).flatten(2).transpose(1, 2)
        return tokens, {"pooled": tokens.mean(dim=1)}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.pyramid.PyramidEncoder", **self._arguments}
