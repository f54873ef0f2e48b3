"""The learning-from-scratch baseline: a small conv net that trains along with the controller."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.models.conv import ConvNet


class ConvEncoder(nn.Module):
    """Hansen et al. 2023 (arXiv 2212.05749): a conv net from scratch with random-shift augmentation.

    Args:
        image_size: S. Departure: the paper feeds 224 px, DrQ-v2 84; 64 px keeps a run on two CPU cores at minutes.
        width: of the feature vector.
        shift: pixels, at image_size, by which a training frame is moved at most (DrQ-v2: 4 at 84 px).
    """

    modality = "image"
    trainable = True

    def __init__(self, *, image_size: int = 64, width: int = 128, shift: int = 3) -> None:
        super().__init__()
        self.image_size, self.width, self.shift = image_size, width, shift
        self.network = ConvNet(image_size=image_size, width=width)
        self.grid = self.network.grid

    def preprocess(self, frames: Tensor) -> Tensor:
        """Frames uint8 [B, H, W, 3], or `augment`'s float [B, 3, S, S], to float [B, 3, S, S] in [-0.5, 0.5]."""
        if frames.dtype == torch.uint8:
            frames = self.resize(frames)
        return frames / 255 - 0.5

    def resize(self, frames: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] to float [B, 3, S, S] in [0, 255]."""
        images = frames.permute(0, 3, 1, 2).float()
        size = (self.image_size, self.image_size)
        if images.shape[-2:] == size:
            return images
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)

    def augment(self, windows: Tensor, generator: torch.Generator | None) -> Tensor:
        """Random shift, one per window so that its frames stay aligned: uint8 [B, T, H, W, 3] to float [B, T, 3, S, S].

        Source: Yarats et al. 2021 (DrQ-v2, arXiv 2107.09645): pad by repeating the border, crop at a random place.
        """
        batch, frames = windows.shape[:2]
        images = self.resize(windows.flatten(0, 1)).unflatten(0, (batch, frames))  # (B, T, 3, S, S)
        pad = self.shift
        padded = F.pad(images.flatten(1, 2), (pad,) * 4, mode="replicate")  # (B, T*3, S+2p, S+2p)
        corners = torch.randint(0, 2 * pad + 1, (batch, 2), generator=generator).tolist()
        size = self.image_size
        crops = [padded[row, :, y : y + size, x : x + size] for row, (y, x) in enumerate(corners)]
        return torch.stack(crops).unflatten(1, (frames, 3))

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Map [B, N, 32] before the last layer as tokens; `pooled` [B, width]."""
        return self.network(images)

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {
            "name": "embodied.encoders.scratch.ConvEncoder",
            "image_size": self.image_size,
            "width": self.width,
            "shift": self.shift,
        }
