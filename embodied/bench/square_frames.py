"""Frames of recordings as a policy on a robot sees them. Legend: B batch, H, W size of a frame, S side of a square."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.loading.frame_size import sized


def square_frames(frames: UInt8[np.ndarray, "B H W 3"], size: int) -> UInt8[np.ndarray, "B S S 3"]:
    """Resized to just cover the square, of which the centre is kept: what `embodied deploy` makes of pictures."""
    return sized(IMAGE_PREFIX, frames, (size, size, 3))


class SquareFrames(nn.Module):
    """An encoder of frames that sees the square in the middle of each.

    Args:
        encoder: frozen, see `core.protocols.Encoder`.
        size: S, pixels.
    """

    def __init__(self, encoder: nn.Module, *, size: int) -> None:
        super().__init__()
        self.encoder, self.size = encoder, size

    def preprocess(self, frames: UInt8[Tensor, "B H W 3"]) -> Tensor:
        """The encoder's, of squares."""
        squares = torch.from_numpy(square_frames(frames.cpu().numpy(), self.size)).to(frames.device)
        return cast(Tensor, self.encoder.preprocess(squares))  # type: ignore[operator]

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return cast(tuple[Tensor, dict[str, Tensor]], self.encoder(images))

    def known_as(self, fingerprint: str) -> str:
        """The encoder's fingerprint, and what it sees of a frame: what these features are cached under."""
        return f"{fingerprint} square {self.size}"
