"""Tokens to one vector by averaging. Legend: B batch, T moments, N tokens, D width, V values of a moment."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class Pooled(nn.Module):
    """The mean of the tokens of every moment; features that are vectors already pass.

    Args:
        width: D, or V for vectors.
        output_dim: a linear map follows (MVP projects to 128, arXiv 2203.06173); None for none.
    """

    def __init__(self, *, width: int, output_dim: int | None = None) -> None:
        super().__init__()
        self.width, self.output_dim = width, output_dim or width
        self.project: nn.Module = nn.Linear(width, output_dim) if output_dim else nn.Identity()

    def forward(self, features: Float[Tensor, "B T *N D"]) -> Float[Tensor, "B T V"]:
        if features.ndim not in {3, 4} or features.shape[-1] != self.width:
            raise UsageError(
                f"features: expected [B, T, {self.width}] or [B, T, N, {self.width}], got {list(features.shape)}"
            )
        return self.project(features if features.ndim == 3 else features.mean(dim=2))


NECK = Pooled
READS_VECTORS = True
