"""Attention pooling. Legend: B batch, T moments, N tokens, D width, Q queries, V = Q * D values of a moment."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError


class QueryPooling(nn.Module):
    """Queries read the tokens by multi-head attention: `attended = softmax(q k^T / sqrt(D / heads)) v`, projected.

    Args:
        tokens: width of the tokens.
        width: D, of queries and output.
        heads: attention heads, a divisor of D.
    """

    def __init__(self, *, tokens: int, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"width must be a multiple of heads={heads}, got {width}")
        self.tokens = tokens
        self.norm = nn.LayerNorm(tokens)
        self.attention = nn.MultiheadAttention(width, heads, kdim=tokens, vdim=tokens, batch_first=True)

    def forward(self, queries: Float[Tensor, "B Q D"], features: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T Q D"]:
        """The same queries for every moment of a sample."""
        if features.ndim != 4 or features.shape[-1] != self.tokens:
            raise UsageError(f"features: expected [B, T, N, {self.tokens}], got {list(features.shape)}")
        batch, moments = features.shape[:2]
        tokens = self.norm(features.flatten(0, 1))  # (B*T, N, C)
        asked = queries.repeat_interleave(moments, dim=0)  # (B*T, Q, D)
        pooled, _ = self.attention(asked, tokens, tokens, need_weights=False)
        return pooled.unflatten(0, (batch, moments))


class Attention(nn.Module):
    """A few learned queries per moment, what they read side by side.

    Sources: Lee et al. 2019 (Set Transformer's pooling, arXiv 1810.00825); attentive probes of V-JEPA
    (Bardes et al. 2024, arXiv 2404.08471), here without their MLP.

    Args:
        width: of the tokens.
        queries: Q.
        query_width: D; None for the tokens' width.
        heads: attention heads, a divisor of D.
    """

    def __init__(self, *, width: int, queries: int = 4, query_width: int | None = None, heads: int = 4) -> None:
        super().__init__()
        size = query_width or width
        self.queries = nn.Parameter(torch.randn(queries, size) * 0.02)
        self.pooling = QueryPooling(tokens=width, width=size, heads=heads)
        self.output_dim = queries * size

    def forward(self, features: Float[Tensor, "B T N C"]) -> Float[Tensor, "B T V"]:
        return self.pooling(self.queries.expand(features.shape[0], -1, -1), features).flatten(2)


NECK = Attention
