"""A causal pre-norm transformer, GPT-2's shape. Legend: B batch, N tokens, D width."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError


class CausalBlock(nn.Module):
    """Attention to the token itself and those before it, then a GELU MLP of 4 D."""

    def __init__(self, width: int, heads: int, *, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.dropout = nn.Dropout(dropout)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        qkv = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, D/heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D/heads)
        dropped = self.dropout.p if self.training else 0.0
        attended = F.scaled_dot_product_attention(query, key, value, dropout_p=dropped, is_causal=True)
        tokens = tokens + self.dropout(self.project(attended.transpose(1, 2).flatten(2)))
        return tokens + self.dropout(self.mlp(self.norm2(tokens)))


class GPT(nn.Module):
    """Learned positions, blocks, a norm and a linear map without bias (Radford et al. 2019, by way of nanoGPT).

    Args:
        tokens: the most that come.
        width: D.
        depth: blocks.
        heads: attention heads, a divisor of D.
        dropout: of embeddings, attention and residuals.
    """

    def __init__(self, *, tokens: int, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"width must be a multiple of heads={heads}, got {width}")
        self.positions = nn.Parameter(torch.empty(tokens, width))
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(CausalBlock(width, heads, dropout=dropout) for _ in range(depth))
        self.norm, self.last = nn.LayerNorm(width), nn.Linear(width, width, bias=False)
        self._initialize(depth)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        tokens = self.dropout(tokens + self.positions[: tokens.shape[1]])
        for block in self.blocks:
            tokens = block(tokens)
        return self.last(self.norm(tokens))

    def _initialize(self, depth: int) -> None:
        """GPT-2's: 0.02, and less for what is added to the residual stream, by the number of additions."""
        nn.init.normal_(self.positions, std=0.02)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=0.02)
                if part.bias is not None:
                    nn.init.zeros_(part.bias)
        for name, parameter in self.named_parameters():
            if name.endswith(("project.weight", "mlp.2.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * depth))
