"""From the tokens of a trunk to what a head reads. Legend: B batch, L tokens, N queries, D width."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import unknown_name
from embodied.models.sequence.cross_attention import LatentReader

Pool = Literal["mean", "max", "last"]
POOLS: tuple[Pool, ...] = ("mean", "max", "last")


def pool_tokens(
    tokens: Float[Tensor, "B L D"], kind: Pool = "mean", *, keep_mask: Bool[Tensor, "B L"] | None = None
) -> Float[Tensor, "B D"]:
    """One vector of a sequence.

    Args:
        tokens: as the trunk gives them.
        kind: `mean`, `max`, or `last`: the last token that is kept.
        keep_mask: True = the token counts, at least one per sample; None: all do.
    """
    if kind not in POOLS:
        raise unknown_name("readout", str(kind), POOLS)
    if keep_mask is None:
        return tokens.mean(dim=1) if kind == "mean" else tokens.amax(dim=1) if kind == "max" else tokens[:, -1]
    kept = keep_mask[..., None]
    if kind == "mean":
        return tokens.masked_fill(~kept, 0).sum(dim=1) / kept.sum(dim=1)
    if kind == "max":
        return tokens.masked_fill(~kept, float("-inf")).amax(dim=1)
    last = keep_mask.shape[1] - 1 - keep_mask.flip(1).int().argmax(dim=1)
    return tokens.gather(1, last[:, None, None].expand(-1, 1, tokens.shape[-1]))[:, 0]


class AttentionReadout(nn.Module):
    """Learned queries read the sequence: Toto's attention pooling, HPT's action tokens.

    Args:
        width: D, of tokens and output.
        queries: N.
    """

    def __init__(self, width: int, *, queries: int = 1) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.reader = LatentReader(width, width, latents=queries, dropout=0.0)

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, keep_mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B N D"]:
        return self.reader(self.norm(tokens), keep_mask=keep_mask)
