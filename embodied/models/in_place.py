"""Blocks in the memory that they have, where nothing learns: on a CPU fresh memory costs as much as some of the sums.

Numbers are those of the plain operations to the last bit. Legend: B batch, T tokens, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def plus_branch(tokens: Float[Tensor, "B T D"], branch: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    """tokens + branch; without gradients it is written over the branch, which must be nobody else's."""
    if torch.is_grad_enabled() or branch.dtype != tokens.dtype or branch.shape != tokens.shape:
        return tokens + branch
    return branch.add_(tokens)


def gelu_of(values: Float[Tensor, "*shape"], *, approximate: str = "none") -> Float[Tensor, "*shape"]:
    """GELU; without gradients it is written over the values, which must be nobody else's."""
    if torch.is_grad_enabled():
        return F.gelu(values, approximate=approximate)
    written: Tensor = torch.ops.aten.gelu_(values, approximate=approximate)
    return written


class BranchGELU(nn.GELU):
    """`nn.GELU` between two linear layers; see `gelu_of`."""

    def forward(self, input: Tensor) -> Tensor:
        return gelu_of(input, approximate=self.approximate)
