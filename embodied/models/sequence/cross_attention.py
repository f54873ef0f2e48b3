"""Learned latents that read a set of tokens. Legend: B batch, Q latents, N tokens, D width of latents, C of tokens,
H heads, E width of a head.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F


class CrossAttention(nn.Module):
    """Queries look at tokens of another width, by heads whose width is free.

    Args:
        width: D.
        inputs: C.
        heads, head_width: the product is the width inside.
        dropout: of the attention's weights, in training.
        output_bias: of the last linear layer; the others have none.
    """

    def __init__(
        self,
        width: int,
        inputs: int,
        *,
        heads: int = 8,
        head_width: int = 64,
        dropout: float = 0.0,
        output_bias: bool = True,
    ) -> None:
        super().__init__()
        inner = heads * head_width
        self.heads, self.dropout = heads, dropout
        self.query = nn.Linear(width, inner, bias=False)
        self.key_value = nn.Linear(inputs, 2 * inner, bias=False)
        self.project = nn.Linear(inner, width, bias=output_bias)

    def forward(
        self,
        queries: Float[Tensor, "B Q D"],
        tokens: Float[Tensor, "B N C"],
        *,
        keep_mask: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """What the queries read; `keep_mask` True = the token may be looked at, at least one per sample."""
        query = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, H, Q, E)
        key, value = self.key_value(tokens).unflatten(-1, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (B, H, N, E)
        read = self._attend(query, key, value, keep_mask)
        return self.project(read.transpose(1, 2).flatten(2))

    def same(
        self,
        queries: Float[Tensor, "Q D"],
        tokens: Float[Tensor, "B N C"],
        *,
        keep_mask: Bool[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B Q D"]:
        """What `forward` gives where all samples have the same queries, up to rounding.

        Where tokens are many, keys and values of each, which together are far wider than a token, need not be made:
        query * (K token) is (K^T query) * token, and the weighted mean of (V token) is V of the mean of tokens.
        """
        count, (places, inputs) = len(queries), tokens.shape[1:]
        head = self.query.out_features // self.heads
        # Multiplications for every head: with keys and values of all tokens, and without them.
        if 2 * places * (inputs * head + count * head) <= count * inputs * (2 * places + head):
            return self(queries.expand(tokens.shape[0], -1, -1), tokens, keep_mask=keep_mask)
        key, value = self.key_value.weight.unflatten(0, (2, self.heads, -1))  # each (H, E, C)
        asked = self.query(queries).unflatten(-1, (self.heads, -1)).transpose(0, 1) @ key  # (H, Q, C)
        tokens = tokens.to(asked.dtype)[:, None]  # (B, 1, N, C)
        asked = asked.flatten(0, 1).expand(tokens.shape[0], 1, -1, -1)  # (B, 1, HQ, C)
        seen = self._attend(asked, tokens, tokens, keep_mask, scale=head**-0.5)[:, 0].unflatten(1, (self.heads, -1))
        return self.project((seen @ value.transpose(1, 2)).transpose(1, 2).flatten(2))  # of (B, H, Q, E)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, keep_mask: Tensor | None, *, scale: float | None = None
    ) -> Tensor:
        return F.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=None if keep_mask is None else keep_mask[:, None, None],
            dropout_p=self.dropout if self.training else 0.0,
            scale=scale,
        )


class LatentReader(nn.Module):
    """HPT's stem: latents read the tokens once, with neither residual nor norm (arXiv 2409.20537, released code).

    Args:
        inputs: C.
        width: D.
        latents: Q.
        dropout: of the attention's weights, in training.
    """

    def __init__(self, inputs: int, width: int, *, latents: int = 16, dropout: float = 0.1) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width) * 0.02)
        self.attention = CrossAttention(width, inputs, dropout=dropout)

    def forward(
        self, tokens: Float[Tensor, "B N C"], *, keep_mask: Bool[Tensor, "B N"] | None = None
    ) -> Float[Tensor, "B Q D"]:
        return self.attention.same(self.latents, tokens, keep_mask=keep_mask)


class Resampler(nn.Module):
    """Perceiver resampler as GR-1 uses it: layers in which latents read the tokens and themselves, each with an MLP.

    Source: Alayrac et al. 2022 (Flamingo, arXiv 2204.14198), in the form of lucidrains' port: no biases, norms on both
    inputs of attention and before the MLP, a norm at the end. Tokens have the width of the latents.

    Args:
        width: D = C.
        latents: Q.
        depth: layers.
        heads, head_width: of attention.
        mlp_ratio: width of the MLP over D.
        media_embedding: a learned vector on every token, which tells pictures of a set apart there; GR-1 has one.
    """

    def __init__(
        self,
        width: int,
        *,
        latents: int = 9,
        depth: int = 3,
        heads: int = 4,
        head_width: int = 128,
        mlp_ratio: float = 4.0,
        media_embedding: bool = False,
    ) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(latents, width))
        self.media = nn.Parameter(torch.randn(width)) if media_embedding else None
        self.layers = nn.ModuleList(
            _ResamplerLayer(width, heads=heads, head_width=head_width, hidden=round(width * mlp_ratio))
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B Q D"]:
        latents = self.latents.expand(tokens.shape[0], -1, -1)
        tokens = tokens if self.media is None else tokens + self.media
        for layer in self.layers:
            latents = layer(latents, tokens)
        return self.norm(latents)


class _ResamplerLayer(nn.Module):
    def __init__(self, width: int, *, heads: int, head_width: int, hidden: int) -> None:
        super().__init__()
        self.token_norm, self.latent_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CrossAttention(width, width, heads=heads, head_width=head_width, output_bias=False)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, hidden, bias=False),
            nn.GELU(),
            nn.Linear(hidden, width, bias=False),
        )

    def forward(self, latents: Tensor, tokens: Tensor) -> Tensor:
        asked, seen = self.latent_norm(latents), self.token_norm(tokens)
        latents = latents + self.attention(asked, torch.cat([seen, asked], dim=1))
        return latents + self.mlp(latents)
