"""Post-norm transformer layers whose positions enter queries and keys of every layer (Carion et al. 2020, DETR,
https://arxiv.org/abs/2005.12872), as ACT uses them. Legend: B batch, N tokens, M memory tokens, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


class EncoderLayer(nn.Module):
    """Self-attention, then a ReLU MLP of `hidden` units."""

    def __init__(self, width: int, heads: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.mlp = _mlp(width, hidden, dropout)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, tokens: Float[Tensor, "B N D"], positions: Float[Tensor, "#B N D"], hidden: Bool[Tensor, "B N"] | None
    ) -> Float[Tensor, "B N D"]:
        """`hidden`: True = no token attends to it."""
        query = tokens + positions
        attended, _ = self.attention(query, query, tokens, key_padding_mask=hidden, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(attended))
        return self.norm2(tokens + self.dropout(self.mlp(tokens)))


class DecoderLayer(nn.Module):
    """Self-attention, attention to the memory, then a ReLU MLP of `hidden` units."""

    def __init__(self, width: int, heads: int, *, hidden: int, dropout: float) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.cross = nn.MultiheadAttention(width, heads, dropout=dropout, batch_first=True)
        self.mlp = _mlp(width, hidden, dropout)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        tokens: Float[Tensor, "B N D"],
        positions: Float[Tensor, "#B N D"],
        memory: Float[Tensor, "B M D"],
        memory_positions: Float[Tensor, "#B M D"],
    ) -> Float[Tensor, "B N D"]:
        query = tokens + positions
        attended, _ = self.attention(query, query, tokens, need_weights=False)
        tokens = self.norm1(tokens + self.dropout(attended))
        attended, _ = self.cross(tokens + positions, memory + memory_positions, memory, need_weights=False)
        tokens = self.norm2(tokens + self.dropout(attended))
        return self.norm3(tokens + self.dropout(self.mlp(tokens)))


def interleaved_sincos(length: int, width: int) -> Float[Tensor, "N D"]:
    """Positions as in "Attention is all you need": sine in even columns, cosine in odd ones."""
    position = torch.arange(length, dtype=torch.float64)[:, None]
    column = torch.arange(width)
    angle = position / 10000 ** (2 * (column // 2).double() / width)
    return torch.where(column % 2 == 0, angle.sin(), angle.cos()).float()


def _mlp(width: int, hidden: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, width))
