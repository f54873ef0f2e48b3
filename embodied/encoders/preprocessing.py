"""From frames at the edge to what a network takes. Legend: B batch, H height, W width, S image size."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.models.vit_arguments import is_number

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """uint8 [B, H, W, 3] to float [B, 3, S, S]: resized where the size differs, scaled to [0, 1], minus mean, over std.

    Args:
        image_size: S, or (height, width); a frame of other proportions is squeezed, since cutting its sides would hide
            parts of the scene.
        mean, std: per channel.

    Raises:
        ValueError: they are no three numbers, or a standard deviation is not positive.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            if not are_channels(values):
                raise ValueError(f"{name} must be three finite numbers, got {values!r}")
        if min(std) <= 0:
            raise ValueError(f"std must be positive, got {list(std)}")
        self.size = (image_size, image_size) if isinstance(image_size, int) else image_size  # height, width
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def forward(self, frames: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 S1 S2"]:
        images = frames.permute(0, 3, 1, 2).to(self.mean.dtype).div_(255)  # (B, 3, H, W), a copy: changed in place
        if images.shape[-2:] != self.size:
            images = F.interpolate(images, size=self.size, mode="bilinear", antialias=True, align_corners=False)
        return images.sub_(self.mean).div_(self.std)

    def inverse(self, images: Float[Tensor, "B 3 S1 S2"]) -> UInt8[Tensor, "B S1 S2 3"]:
        """Normalised images as viewable frames."""
        pixels = (images * self.std + self.mean).clamp(0, 1) * 255
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 1)


def are_channels(values: object) -> bool:
    """Whether these are three finite numbers, one per channel."""
    return isinstance(values, Sequence) and len(values) == 3 and all(map(is_number, values))
