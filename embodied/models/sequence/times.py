"""Embeddings of time. Legend: B batch, T steps, N tokens of a step, D width."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name

Kind = Literal["learned", "sincos"]


def sincos_1d(width: int, steps: int, *, interleaved: bool = False) -> Float[Tensor, "T D"]:
    """Sines and cosines of position / 10000^(2k/D) (Vaswani et al. 2017, arXiv 1706.03762, Sec. 3.5).

    Args:
        width: D, even.
        steps: T.
        interleaved: sine and cosine alternate, as in that paper and in HPT; else the sines come first, as in MAE.
    """
    if width % 2:
        raise UsageError(f"width must be even for sine-cosine times, got {width}")
    frequency = 1.0 / 10000 ** (torch.arange(width // 2, dtype=torch.float64) / (width / 2))
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * frequency  # (T, D/2)
    parts = [angle.sin(), angle.cos()]
    return (torch.stack(parts, dim=-1).flatten(1) if interleaved else torch.cat(parts, dim=1)).float()


class TimeEmbedding(nn.Module):
    """Adds to every token of a step what stands for that step: one vector for all of them.

    Args:
        steps: T at most.
        width: D.
        kind: `learned` (normal, 0.02) or `sincos` (fixed).
    """

    def __init__(self, steps: int, width: int, *, kind: Kind = "learned") -> None:
        super().__init__()
        self.steps = steps
        self.table: Tensor
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(steps, width) * 0.02)
        elif kind == "sincos":
            self.register_buffer("table", sincos_1d(width, steps), persistent=False)
        else:
            raise unknown_name("kind of time embedding", str(kind), ("learned", "sincos"))

    def forward(self, tokens: Float[Tensor, "B T N D"]) -> Float[Tensor, "B T N D"]:
        """Tokens of up to `steps` steps with their times; the last step always has the last one.

        So a shorter window is the end of a longer one: the present is the present.
        """
        steps = tokens.shape[1]
        if steps > self.steps:
            raise UsageError(f"a window of {steps} steps is longer than the {self.steps} that this model knows")
        return tokens + self.table[self.steps - steps :, None]
