"""Vision transformer. Legend: B batch, S image size, P patch size, N patches, K kept patches, D width."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.models.patches import patchify
from embodied.models.positions import sincos_2d


class Block(nn.Module):
    """Pre-norm transformer block: attention, then a GELU MLP (Dosovitskiy et al. 2021, arXiv 2010.11929)."""

    def __init__(self, width: int, heads: int, *, mlp_ratio: float = 4.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=eps)
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=eps)
        hidden = int(width * mlp_ratio)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B N D"]:
        qkv = self.qkv(self.norm1(tokens)).unflatten(-1, (3, self.heads, -1))  # (B, N, 3, heads, D/heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, N, D/heads)
        attended = F.scaled_dot_product_attention(query, key, value)
        tokens = tokens + self.project(attended.transpose(1, 2).flatten(2))  # (B, N, D)
        return tokens + self.mlp(self.norm2(tokens))


class VisionTransformer(nn.Module):
    """ViT with fixed sine-cosine positions, as MAE uses it; patches may be dropped before the first block.

    Args:
        image_size: S, a multiple of patch_size.
        patch_size: P.
        width: D, a multiple of 4 and of heads.
        depth: blocks.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over D.
        class_token: whether a learned token leads the sequence.
        eps: of the layer norms.
    """

    def __init__(
        self,
        *,
        image_size: int = 128,
        patch_size: int = 16,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        class_token: bool = True,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size must be a multiple of patch_size={patch_size}, got {image_size}")
        if width % heads:
            raise ValueError(f"width must be a multiple of heads={heads}, got {width}")
        side = image_size // patch_size
        self.image_size, self.patch_size, self.width, self.grid = image_size, patch_size, width, (side, side)
        # A Linear on flattened patches is the strided convolution of the paper, and faster on a CPU.
        self.embed = nn.Linear(3 * patch_size**2, width)
        self.class_token = nn.Parameter(torch.zeros(1, 1, width)) if class_token else None
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(width, side, side, class_token=class_token), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio, eps=eps) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=eps)
        initialize(self)
        if self.class_token is not None:
            nn.init.normal_(self.class_token, std=0.02)

    def forward(
        self, images: Float[Tensor, "B 3 S S"], keep_ids: Int[Tensor, "B K"] | None = None, *, layers: bool = False
    ) -> tuple[Float[Tensor, "B K D"], dict[str, Tensor]]:
        """Patch tokens after the final norm, and `pooled` (their mean), `cls` (with a class token), both [B, D].

        Args:
            images: normalised.
            keep_ids: patches to see, all if None; the others are dropped before the first block, positions included.
            layers: also return the patch tokens after every block, before the final norm, as `layer<k>` from 1.
        """
        tokens = self.embed(patchify(images, self.patch_size))  # (B, N, D)
        leading = self.class_token is not None
        tokens = tokens + self.positions[int(leading) :]
        if keep_ids is not None:
            tokens = tokens.gather(1, keep_ids[..., None].expand(-1, -1, self.width))  # (B, K, D)
        if self.class_token is not None:
            first = self.class_token + self.positions[:1]
            tokens = torch.cat([first.expand(tokens.shape[0], -1, -1), tokens], dim=1)  # (B, 1 + K, D)
        out: dict[str, Tensor] = {}
        for number, block in enumerate(self.blocks, start=1):
            tokens = block(tokens)
            if layers:
                out[f"layer{number}"] = tokens[:, int(leading) :]
        tokens = self.norm(tokens)
        patches = tokens[:, int(leading) :]
        out["pooled"] = patches.mean(dim=1)
        if leading:
            out["cls"] = tokens[:, 0]
        return patches, out


def initialize(module: nn.Module) -> None:
    """MAE's initialisation: Xavier-uniform for every Linear (the patch embedding too), zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
