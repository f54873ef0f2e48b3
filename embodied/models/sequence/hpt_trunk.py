"""The trunk that all embodiments share in HPT. Legend: B batch, L tokens, D width, H heads, E = D / H."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.models.block import initialize
from embodied.models.in_place import gelu_of, plus_branch
from embodied.models.sequence.attention_rules import additive
from embodied.models.sequence.packing import Packing, pack_sequences

Size = Literal["s", "b", "l", "xl"]
SIZES: dict[str, tuple[int, int]] = {"s": (16, 128), "b": (16, 256), "l": (16, 512), "xl": (32, 768)}  # depth, width
PREFIX = "trunk."  # of every name in a published file


class HPTTrunk(nn.Module):
    """Pre-norm blocks whose attention has one more key and value that are learned; no norm at the end, no mask.

    Source: Wang et al. 2024 (https://arxiv.org/abs/2409.20537), released code, whose sizes have L * (12 D^2 + 15 D)
    weights: 3,176,448, 12,644,352, 50,454,528 and 226,861,056. The file of weights does not tell the number of heads;
    the released configuration has 8.

    Args:
        size: `s`, `b`, `l`, `xl`; None: by width and depth.
        width, depth: D and the number of blocks, of a trunk that was not published.
        heads: H.
        drop_path: of the last block in training, rising linearly from 0 at the first.

    Raises:
        UsageError: there is no such size, both a size and numbers are given, or they do not fit each other.
    """

    def __init__(
        self,
        *,
        size: str | None = "s",
        width: int | None = None,
        depth: int | None = None,
        heads: int = 8,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        depth, width = _shape(size, width, depth)
        if heads < 1 or width % heads or width % 2:
            raise UsageError(f"the trunk's width must be even and a multiple of heads={heads}, got {width}")
        if not 0 <= drop_path < 1:
            raise UsageError(f"drop_path must be in [0, 1), got {drop_path}")
        self.width, self.depth, self.heads, self.drop_path = width, depth, heads, drop_path
        rates = [drop_path * number / max(depth - 1, 1) for number in range(depth)]
        self.blocks = nn.ModuleList(_Block(width, heads, drop_path=rate) for rate in rates)
        initialize(self)

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, keep_mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B L D"]:
        """The tokens after all blocks; `keep_mask` True = the token may be looked at, None: all may."""
        mask = None if keep_mask is None else _attention_mask(keep_mask[:, None, None], tokens)  # (B, 1, 1, L + 1)
        for block in self.blocks:
            tokens = block(tokens, mask)
        return tokens

    def packed(self, tokens: Float[Tensor, "B L D"], keep_mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B L D"]:
        """What `forward` makes of the tokens that are there, in rows that hold several sequences; zeros elsewhere.

        Drop-path draws for every sequence, not for every row: it is the same in training, too.
        """
        packing = pack_sequences(keep_mask)
        rows, mask = packing.pack(tokens), _attention_mask(packing.mask(), tokens)
        for block in self.blocks:
            rows = block(rows, mask, packing)
        return packing.unpack(rows)

    def config(self) -> dict[str, int | float | None]:
        """The arguments that rebuild it."""
        numbers = {"width": self.width, "depth": self.depth, "heads": self.heads, "drop_path": self.drop_path}
        return {"size": None, **numbers}

    def published(self) -> dict[str, Tensor]:
        """The weights by the names that the authors' `trunk.pth` has."""
        return {_published(name): tensor.detach() for name, tensor in self.state_dict().items()}

    def load_published(self, weights: Mapping[str, object], *, source: str) -> None:
        """Take weights by their published names, all of them and no others.

        Args:
            weights: as of a `trunk.pth` or of `published`.
            source: where they come from, for errors.

        Raises:
            UserError: one is missing, unknown, or has another shape.
        """
        expected = {_published(name): name for name in self.state_dict()}
        for what, names in (
            ("lacks", expected.keys() - weights.keys()),
            ("also has", weights.keys() - expected.keys()),
        ):
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                told = ", ".join(sorted(names)[:3]) + more
                raise UserError(f"{source} is no trunk of {self.depth} blocks of HPT: it {what} {told}")
        state = self.state_dict()
        for name, own in expected.items():
            found = weights[name]
            if not isinstance(found, Tensor) or found.shape != state[own].shape:
                got = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(
                    f"{source}: {name} is {got}, expected {list(state[own].shape)}: "
                    "set encoder.size to that of the file"
                )
        self.load_state_dict({own: weights[name] for name, own in expected.items()})


def _shape(size: str | None, width: int | None, depth: int | None) -> tuple[int, int]:
    if size is not None:
        if size not in SIZES:
            raise unknown_name("size of HPT's trunk", str(size), SIZES)
        if width is not None or depth is not None:
            raise UsageError(f"give either size={size} or width and depth (with size=null), not both")
        return SIZES[size]
    if width is None or depth is None or width < 1 or depth < 0:
        raise UsageError(f"a trunk without a size needs width and depth, got {width} and {depth}")
    return depth, width


def _attention_mask(mask: Bool[Tensor, "B 1 _ L"], tokens: Tensor) -> Float[Tensor, "B 1 _ L1"]:
    """To be added to the logits: `mask` True = the row (or all rows) may look at the column; all at what is learned."""
    return additive(F.pad(mask, (0, 1), value=True), like=tokens)


def _published(name: str) -> str:
    """Ours has linear layers where the authors have plain tensors, so that adapters find them."""
    return PREFIX + name.replace(".in_proj.", ".in_proj_")


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, *, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.attn = _Attention(width, heads)
        self.norm_1 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.norm_2 = nn.LayerNorm(width, eps=1e-6)

    def forward(self, tokens: Tensor, mask: Tensor | None, packing: Packing | None = None) -> Tensor:
        tokens = plus_branch(tokens, self._branch(self.attn(self.norm_1(tokens), mask), packing))
        hidden = gelu_of(self.mlp["fc1"](self.norm_2(tokens)))
        return plus_branch(tokens, self._branch(self.mlp["fc2"](hidden), packing))

    def _branch(self, values: Tensor, packing: Packing | None) -> Tensor:
        """Drop the branch of a sequence with probability `drop_path`, as `models.block.drop_branches` does."""
        if not (self.training and self.drop_path > 0):
            return values
        count = values.shape[0] if packing is None else packing.sequences[0]
        keep = values.new_empty(count, 1, 1).bernoulli_(1 - self.drop_path)
        if packing is not None:
            keep = keep[packing.owner, 0]  # (R, C, 1); where nothing is, the last sequence's
        return values * keep / (1 - self.drop_path)


class _Attention(nn.Module):
    """Self-attention with a learned key and value beside those of the tokens, as torch's has with `add_bias_kv`."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.bias_k, self.bias_v = nn.Parameter(torch.empty(1, 1, width)), nn.Parameter(torch.empty(1, 1, width))
        nn.init.xavier_normal_(self.bias_k)
        nn.init.xavier_normal_(self.bias_v)

    def forward(self, tokens: Float[Tensor, "B L D"], mask: Float[Tensor, "B 1 _ L1"] | None) -> Float[Tensor, "B L D"]:
        """`mask` as `_attention_mask` makes it."""
        batch = tokens.shape[0]
        query, key, value = self.in_proj(tokens).chunk(3, dim=-1)
        key = torch.cat([key, self.bias_k.to(key.dtype).expand(batch, -1, -1)], dim=1)  # (B, L + 1, D)
        value = torch.cat([value, self.bias_v.to(value.dtype).expand(batch, -1, -1)], dim=1)
        if mask is not None:
            mask = mask.to(query.dtype)
        heads = [part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value)]  # (B, H, _, E)
        attended = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=mask)
        return self.out_proj(attended.transpose(1, 2).flatten(2))
