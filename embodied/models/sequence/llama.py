"""The transformer of LLaMA: root-mean-square norms, SwiGLU, rotary positions, attention that looks back only.

Legend: B batch, L tokens, D width, H heads, E = D / H, M width of the MLP.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from embodied.core.errors import UsageError
from embodied.models.block import Rotation, SwiGLU
from embodied.models.positions import rotate

INITIAL_STD = 0.02


class Cache:
    """Keys and values of the tokens that were read, so that those that follow are computed alone.

    It is written in place, so nothing can be differentiated through it.

    Args:
        blocks: of the transformer.
        capacity: tokens at most; they are allocated when the first are written.
    """

    def __init__(self, blocks: int, capacity: int) -> None:
        self.capacity, self.length = capacity, 0
        self._parts: list[tuple[Tensor, Tensor] | None] = [None] * blocks

    def append(self, block: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values of a block, [B, H, L, E], with those of new tokens written behind `length`."""
        stop = self.length + key.shape[2]
        if stop > self.capacity:
            raise UsageError(f"a cache of {self.capacity} tokens cannot hold {stop}")
        held = self._parts[block]
        if held is None:
            shape = (*key.shape[:2], self.capacity, key.shape[3])
            held = key.new_zeros(shape), value.new_zeros(shape)
            self._parts[block] = held
        for kept, new in zip(held, (key, value), strict=True):
            kept[:, :, self.length : stop] = new
        return held[0][:, :, :stop], held[1][:, :, :stop]


class LlamaBlock(nn.Module):
    """Pre-norm block without biases (Touvron et al. 2023, arXiv 2302.13971).

    Args:
        width: D.
        heads: H.
        hidden: M.
        eps: of the norms.
    """

    def __init__(self, width: int, heads: int, *, hidden: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.RMSNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.project = nn.Linear(width, width, bias=False)
        self.norm2 = nn.RMSNorm(width, eps=eps)
        self.mlp = SwiGLU(width, hidden, bias=False)

    def forward(
        self, tokens: Float[Tensor, "B L D"], rotation: Rotation, *, cache: Cache | None = None, number: int = 0
    ) -> Float[Tensor, "B L D"]:
        """The tokens after both branches.

        Args:
            tokens: as they come, those behind what `cache` holds.
            rotation: one row per token.
            cache: what stands before them; gets their keys and values too.
            number: of the block in the cache.
        """
        tokens = tokens + self._attend(self.norm1(tokens), rotation, cache, number)
        return tokens + self.mlp(self.norm2(tokens))

    def _attend(self, tokens: Tensor, rotation: Rotation, cache: Cache | None, number: int) -> Tensor:
        qkv = self.qkv(tokens).unflatten(-1, (3, self.heads, -1))  # (B, L, 3, H, E)
        query, key, value = (part.transpose(1, 2) for part in qkv.unbind(2))  # each (B, H, L, E)
        query, key = rotate(query, rotation), rotate(key, rotation)
        before = 0
        if cache is not None:
            before = cache.length
            key, value = cache.append(number, key, value)
        new = tokens.shape[1]
        mask = None
        if before and new > 1:  # the causal flag of torch counts from the first key, not from the last
            mask = torch.ones(new, before + new, dtype=torch.bool, device=tokens.device).tril(before)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=not before and new > 1)
        return self.project(attended.transpose(1, 2).flatten(2))  # (B, L, D)


class Llama(nn.Module):
    """LLaMA's blocks and its last norm, over tokens that are embedded already.

    Args:
        width: D, a multiple of twice `heads`.
        depth: blocks.
        heads: H.
        hidden: M.
        rotary_base: of the rotary positions' wavelengths.
        eps: of the norms.
        recompute: in training, compute each block again in the backward pass: less memory, a third more time.

    Raises:
        UsageError: the numbers do not fit each other.
    """

    def __init__(
        self,
        *,
        width: int,
        depth: int,
        heads: int,
        hidden: int,
        rotary_base: float = 10000.0,
        eps: float = 1e-5,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        if depth < 1 or heads < 1 or hidden < 1 or width < 1 or width % (2 * heads):
            raise UsageError(
                f"expected depth and hidden of at least 1 and a width that is a multiple of twice heads={heads}, got "
                f"depth {depth}, hidden {hidden}, width {width}"
            )
        if rotary_base <= 1:
            raise UsageError(f"rotary_base must be above 1, got {rotary_base}")
        self.width, self.heads, self.rotary_base, self.recompute = width, heads, float(rotary_base), recompute
        self.blocks = nn.ModuleList(LlamaBlock(width, heads, hidden=hidden, eps=eps) for _ in range(depth))
        self.norm = nn.RMSNorm(width, eps=eps)
        for part in self.modules():
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=INITIAL_STD)

    def forward(
        self, tokens: Float[Tensor, "B L D"], *, cache: Cache | None = None, depth: int | None = None
    ) -> Float[Tensor, "B L D"]:
        """The tokens after `depth` blocks, without the last norm; after all of them and with it if that is None."""
        (state,) = self.at_depths(tokens, [len(self.blocks) if depth is None else depth], cache=cache)
        return self.norm(state) if depth is None else state

    def at_depths(
        self, tokens: Float[Tensor, "B L D"], depths: Sequence[int], *, cache: Cache | None = None
    ) -> list[Float[Tensor, "B L D"]]:
        """The tokens after each of these numbers of blocks (0: as they come), by one pass up to the last of them.

        Args:
            tokens: embedded, those behind what `cache` holds.
            depths: in [0, blocks].
            cache: what stands before them; it is written, and always has to be read to the same depth.
        """
        if not depths or min(depths) < 0 or max(depths) > len(self.blocks):
            raise UsageError(f"depths must be in [0, {len(self.blocks)}], the transformer's blocks, got {list(depths)}")
        start = 0 if cache is None else cache.length
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        rotation = rotary_1d(places, self.width // self.heads, base=self.rotary_base)
        found = {0: tokens}
        for number in range(max(depths)):
            block = self.blocks[number]
            if self.recompute and self.training and cache is None and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, rotation, use_reentrant=False)
            else:
                tokens = block(tokens, rotation, cache=cache, number=number)
            found[number + 1] = tokens
        if cache is not None:
            cache.length += tokens.shape[1]
        return [found[depth] for depth in depths]


def rotary_1d(places: Tensor, head_width: int, *, base: float) -> Rotation:
    """Cosine and sine [L, E] of places in a sequence: element i turns by place / base^(2i/E), i + E/2 alike.

    Source: Su et al. 2021 (RoFormer, arXiv 2104.09864), with the pairs of LLaMA's port to `transformers`.
    """
    frequency = 1.0 / base ** (torch.arange(0, head_width, 2, dtype=torch.float32, device=places.device) / head_width)
    angles = (places[:, None].float() * frequency).repeat(1, 2)  # (L, E)
    return angles.cos(), angles.sin()
