"""The baseline that sees nothing: what a controller can do by proprioception alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class ProprioceptionEncoder(nn.Module):
    """Features of no values at all, so that a controller, which gets proprioception beside the features, has only that.

    Neck, head and training are those of every other encoder: what such a policy scores is what a task gives away
    without being looked at.
    """

    modality = "proprioception"
    trainable = False

    def __init__(self) -> None:
        super().__init__()
        self.width, self.grid = 0, (1, 1)

    def preprocess(self, frames: Tensor) -> Tensor:
        """Anything with B rows to float [B, 0]."""
        return frames.flatten(1)[:, :0].float()

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, 1, 0]; `pooled` [B, 0]."""
        return images[:, None], {"pooled": images}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.proprioception.ProprioceptionEncoder"}
