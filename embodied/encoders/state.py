"""The privileged oracle: the simulator's state instead of a picture."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class StateEncoder(nn.Module):
    """Passes `observation.environment_state` through: what a controller could do with perfect perception."""

    modality = "state"
    trainable = False

    def __init__(self, *, dim: int) -> None:
        super().__init__()
        self.width, self.grid = dim, (1, 1)

    def preprocess(self, frames: Tensor) -> Tensor:
        """float [B, S], unchanged."""
        return frames.float()

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Tokens [B, 1, S]; `pooled` [B, S]."""
        return images[:, None], {"pooled": images}

    def config(self) -> dict[str, Any]:
        """What rebuilds this encoder."""
        return {"name": "embodied.encoders.state.StateEncoder", "dim": self.width}
