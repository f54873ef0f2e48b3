"""From an encoder's tokens to predictions. Legend: B batch, L leading tokens, K kept, N patches, M queries, D width."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from embodied.core.errors import UsageError, unknown_name
from embodied.models.attention import attention
from embodied.models.block import Block, initialize
from embodied.models.patches import unpatchify
from embodied.models.positions import sincos_2d
from embodied.objectives.parts.settings import at_least

CROSS_KINDS = ("cross", "cross_self", "joint")


class SelfDecoder(nn.Module):
    """MAE's decoder: kept tokens and a mask token in every gap, positions, self-attention blocks, a linear head.

    Args:
        inputs: width of the encoder's tokens.
        outputs: values predicted per patch.
        width, depth, heads: of the blocks.
        grid: rows and columns of patches.
        leading: L, class tokens at the front of the sequence.
        positions: `sincos` (fixed), `learned` (normal, 0.02) or `none`.
        gaps: whether there is a mask token; without it the decoder only takes whole sequences.
    """

    def __init__(
        self,
        *,
        inputs: int,
        outputs: int,
        width: int,
        depth: int,
        heads: int,
        grid: tuple[int, int],
        leading: int = 1,
        positions: Literal["sincos", "learned", "none"] = "sincos",
        gaps: bool = True,
    ) -> None:
        super().__init__()
        _check_blocks(width, depth, heads)
        rows, columns = grid
        self.embed = nn.Linear(inputs, width)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, width)) if gaps else None
        self.positions: Tensor | None
        if positions == "learned":
            self.positions = nn.Parameter(torch.zeros(leading + rows * columns, width))
        elif positions == "sincos":
            table = sincos_2d(width, rows, columns, class_token=False)
            self.register_buffer("positions", torch.cat([torch.zeros(leading, width), table]), persistent=False)
        elif positions == "none":
            self.positions = None
        else:
            raise unknown_name("positions", positions, ("sincos", "learned", "none"))
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, outputs)
        for part in (self.embed, self.blocks, self.head):
            initialize(part)
        for learned in (self.mask_token, self.positions):
            if isinstance(learned, nn.Parameter):
                nn.init.normal_(learned, std=0.02)

    def forward(
        self,
        leading: Float[Tensor, "B L D"],
        tokens: Float[Tensor, "B K D"],
        restore_ids: Int[Tensor, "B N"] | None = None,
    ) -> Float[Tensor, "B N C"]:
        """Predictions of all patches in raster order.

        Args:
            leading: class tokens.
            tokens: of the kept patches, in the order of the mask sampler.
            restore_ids: see `models.masks.uniform_mask`; None: tokens are all patches, in their own order.
        """
        sequence = self.embed(torch.cat([leading, tokens], dim=1))  # (B, L + K, width)
        count = leading.shape[1]
        if restore_ids is not None:
            assert self.mask_token is not None, "a decoder made with gaps=False"
            gaps = self.mask_token.expand(len(sequence), restore_ids.shape[1] - tokens.shape[1], -1)
            shuffled = torch.cat([sequence[:, count:], gaps], dim=1)  # (B, N, width)
            ordered = shuffled.gather(1, restore_ids[..., None].expand(-1, -1, shuffled.shape[-1]))
            sequence = torch.cat([sequence[:, :count], ordered], dim=1)
        if self.positions is not None:
            sequence = sequence + self.positions
        for block in self.blocks:
            sequence = block(sequence)
        return self.head(self.norm(sequence))[:, count:]


class CrossBlock(nn.Module):
    """Pre-norm block of queries: self-attention if asked, attention to a memory, MLP."""

    def __init__(self, width: int, heads: int, *, self_attention: bool) -> None:
        super().__init__()
        self.heads = heads
        self.self_block = Block(width, heads) if self_attention else None
        self.norm_query, self.norm_memory = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.project = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, tokens: Float[Tensor, "B M D"], memory: Float[Tensor, "B K D"]) -> Float[Tensor, "B M D"]:
        if self.self_block is not None:
            # Departure from CroCo's block: a whole block, with an MLP of its own, instead of attention alone.
            tokens = self.self_block(tokens)
        query = self.query(self.norm_query(tokens)).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key_value = self.key_value(self.norm_memory(memory)).unflatten(-1, (2, self.heads, -1))
        key, value = key_value.permute(2, 0, 3, 1, 4)
        seen = attention(query, key, value)  # (B, heads, M, D/heads)
        tokens = tokens + self.project(seen.transpose(1, 2).flatten(2))
        return tokens + self.mlp(self.norm(tokens))


class CrossDecoder(nn.Module):
    """Queries that look at a memory of tokens; a linear head on the queries.

    Args:
        inputs: width of the memory's tokens.
        outputs: values predicted per query.
        width, depth, heads: of the blocks.
        kind: `cross`: queries see the memory only; `cross_self`: each other too (SiamMAE, CroCo); `joint`: queries and
            memory are one sequence with self-attention (MAE's own way).
    """

    def __init__(
        self, *, inputs: int, outputs: int, width: int, depth: int, heads: int, kind: str = "cross_self"
    ) -> None:
        super().__init__()
        if kind not in CROSS_KINDS:
            raise unknown_name("decoder", kind, CROSS_KINDS)
        _check_blocks(width, depth, heads)
        self.kind = kind
        self.embed = nn.Linear(inputs, width)
        self.blocks = nn.ModuleList(
            Block(width, heads) if kind == "joint" else CrossBlock(width, heads, self_attention=kind == "cross_self")
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, outputs)
        initialize(self)

    def forward(
        self,
        queries: Float[Tensor, "B M D"],
        memory: Float[Tensor, "B K E"],
        memory_positions: Float[Tensor, "... K D"] | None = None,
    ) -> Float[Tensor, "B M C"]:
        """Predictions of the queries, which are of the decoder's width and carry their positions already."""
        seen = self.embed(memory)
        if memory_positions is not None:
            seen = seen + memory_positions
        if self.kind == "joint":
            tokens = torch.cat([queries, seen], dim=1)
            for block in self.blocks:
                tokens = block(tokens)
            queries = tokens[:, : queries.shape[1]]
        else:
            for block in self.blocks:
                queries = block(queries, seen)
        return self.head(self.norm(queries))


class PixelHead(nn.Module):
    """A linear map of each token to the pixels of its patch: SimMIM's, MFM's and ROPIM's decoder.

    The papers write it as a 1 x 1 convolution and PixelShuffle, which is this with the rows of the matrix in the order
    channel, row, column instead of row, column, channel.
    """

    def __init__(self, width: int, patch_size: int, rows: int) -> None:
        super().__init__()
        self.patch_size, self.rows = patch_size, rows
        self.linear = nn.Linear(width, 3 * patch_size**2)
        initialize(self)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B 3 S S"]:
        return unpatchify(self.linear(tokens), self.patch_size, self.rows)


class ResidualMLP(nn.Module):
    """Blocks of norm, MLP and residual on each token by itself, without attention: AIM's head."""

    def __init__(self, *, inputs: int, outputs: int, width: int, depth: int, bias: bool = True) -> None:
        super().__init__()
        at_least(1, head_width=width)
        at_least(0, head_depth=depth)
        self.embed = nn.Linear(inputs, width, bias=bias)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.LayerNorm(width, eps=1e-6),
                nn.Linear(width, 4 * width, bias=bias),
                nn.GELU(),
                nn.Linear(4 * width, width, bias=bias),
            )
            for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, outputs, bias=bias)
        initialize(self)

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N C"]:
        tokens = self.embed(tokens)
        for block in self.blocks:
            tokens = tokens + block(tokens)
        return self.head(self.norm(tokens))


def leading_tokens(tokens: Float[Tensor, "B K D"], out: dict[str, Tensor]) -> Float[Tensor, "B L D"]:
    """All class tokens of an encoder's output, none if it has none."""
    if "class_tokens" in out:
        return out["class_tokens"]
    return out["cls"][:, None] if "cls" in out else tokens[:, :0]


def global_feature(out: Mapping[str, Tensor]) -> Float[Tensor, "B D"]:
    """What an encoder says of the whole image: the class token, or the mean of its patches if it has none."""
    return out["cls"] if "cls" in out else out["pooled"]


def _check_blocks(width: int, depth: int, heads: int) -> None:
    at_least(1, decoder_width=width, decoder_heads=heads)
    at_least(0, decoder_depth=depth)  # without blocks it is linear
    if width % heads:
        raise UsageError(f"decoder_width must be a multiple of decoder_heads={heads}, got {width}")
