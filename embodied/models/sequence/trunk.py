"""The transformer between stems and readout. Legend: B batch, L tokens, D width."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.models.block import Block, initialize
from embodied.models.sequence.attention_rules import additive
from embodied.models.sequence.packing import pack_sequences


class Trunk(nn.Module):
    """Pre-norm blocks over a sequence.

    Args:
        width: D, a multiple of heads.
        depth: blocks; 0 for none.
        heads: attention heads.
        drop_path: of the last block, rising linearly from 0 at the first.
        final_norm: a layer norm after the last block.
        eps: of the layer norms.
        options: further arguments of `models.block.Block`.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        drop_path: float = 0.0,
        final_norm: bool = True,
        eps: float = 1e-6,
        **options: Any,
    ) -> None:
        super().__init__()
        if depth < 0 or heads < 1 or width % heads:
            raise UsageError(
                f"expected depth >= 0 and a width that is a multiple of heads={heads}, got {depth}, {width}"
            )
        self.width = width
        rates = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList(Block(width, heads, eps=eps, drop_path=rate, **options) for rate in rates)
        self.norm = nn.LayerNorm(width, eps=eps) if final_norm else nn.Identity()
        initialize(self)

    def forward(self, tokens: Float[Tensor, "B L D"], *, mask: Tensor | None = None) -> Float[Tensor, "B L D"]:
        """The tokens after all blocks; `mask` as of `Block`, see `attention_rules.mask_from_groups`."""
        if mask is not None and mask.dtype == torch.bool:
            mask = additive(mask, like=tokens)
        for block in self.blocks:
            tokens = block(tokens, mask=mask)
        return self.norm(tokens)

    def last(self, tokens: Float[Tensor, "B L D"]) -> Float[Tensor, "B 1 D"]:
        """What `forward` makes of the last token without a mask, up to rounding, for most of a block less."""
        if not len(self.blocks):
            return self.norm(tokens[:, -1:])
        *before, final = self.blocks
        for block in before:
            tokens = block(tokens)
        return self.norm(final.last(tokens))  # type: ignore[operator]

    def packed(
        self,
        tokens: Float[Tensor, "S L D"],
        keep: Bool[Tensor, "S L"],
        *,
        within: Bool[Tensor, "L L"] | None = None,
        capacity: int | None = None,
    ) -> Float[Tensor, "S L D"]:
        """What `forward` makes of sequences of several lengths, computed in rows that hold several of them.

        The tokens that are there come out as if each sequence were alone; others are zeros. Worth it where many are not
        there. With drop-path, training drops whole rows in place of sequences.

        Args:
            tokens: S sequences, already with their positions.
            keep: True = a token is there.
            within: what a token may look at in its sequence, see `attention_rules.mask_from_groups`; None: everything.
            capacity: places of a row; None: as many as the longest sequence has tokens.
        """
        packing = pack_sequences(keep, capacity=capacity)
        return packing.unpack(self(packing.pack(tokens), mask=packing.mask(within)))
