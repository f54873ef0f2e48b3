"""Vision transformer. Legend: B batch, S image size, P patch size, N patches, K kept patches, C class tokens,
R registers, T = C + R + K, D width.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from embodied.models.block import Block, Rotation, initialize
from embodied.models.patches import TubeletEmbedding, patchify
from embodied.models.positions import (
    RelativeBias,
    clip_rotary_angles,
    resize_positions,
    rotary_angles,
    sincos_2d,
)
from embodied.models.vit_arguments import check_arguments


class VisionTransformer(nn.Module):
    """ViT; as it stands with MAE's fixed sine-cosine positions. Patches may be dropped before the first block.

    Args:
        image_size: S, or (height, width), multiples of patch_size: what the positions are made for. Images of another
            size are taken too: positions are resized (`models.positions`), rotary ones need no resizing.
        patch_size: P.
        width: D, a multiple of heads, and of 4 for "sincos", of 4 * heads for "rope".
        depth: blocks.
        heads: attention heads.
        mlp_ratio, mlp, bias, layer_scale, qk_norm, eps: see `models.block.Block`.
        class_tokens: C learned tokens that lead the sequence.
        class_token: False for C = 0, True for C = 1; None: `class_tokens` counts.
        registers: R learned tokens after them, which nothing reads (Darcet et al. 2024, arXiv 2309.16588).
        positions: "sincos" (fixed), "learned" (both added to patches and class tokens), "rope" (DINOv3's, of patches
            only), "clip_rope" (V-JEPA 2's, likewise), "none".
        tubelet: frames of a video that the image stands for, as V-JEPA 2 has it; 1: the network is of images.
        relative_bias: BEiT's bias of attention, one for all blocks ("shared") or one of each ("block"); None: none.
        rope_base: of the rotary frequencies.
        antialias: when a table of positions is resized, as DINOv2 with registers does.
        pre_norm: a layer norm before the first block, as CLIP has it.
        drop_path: of the last block, rising linearly from 0 at the first.
        final_norm: a layer norm after the last block; "class": on class tokens only, as CLIP has it; "pooled": on
            `pooled` only, as fine-tuned BEiT has it.
        checkpointing: recompute the blocks' activations in the backward pass: less memory, more time.
    """

    def __init__(
        self,
        *,
        image_size: int | tuple[int, int] = 128,
        patch_size: int = 16,
        width: int = 192,
        depth: int = 6,
        heads: int = 3,
        mlp_ratio: float = 4.0,
        class_tokens: int = 1,
        class_token: bool | None = None,
        registers: int = 0,
        positions: str = "sincos",
        tubelet: int = 1,
        relative_bias: Literal["shared", "block"] | None = None,
        rope_base: float = 100.0,
        antialias: bool = False,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        qk_norm: bool = False,
        mlp: str = "gelu",
        bias: bool = True,
        eps: float = 1e-6,
        pre_norm: bool = False,
        final_norm: bool | Literal["class", "pooled"] = True,
        checkpointing: bool = False,
    ) -> None:
        check_arguments(locals())  # the arguments: there is nothing else yet
        super().__init__()
        rows, columns = grid_of(image_size, patch_size)
        self.image_size, self.patch_size, self.width, self.grid = image_size, patch_size, width, (rows, columns)
        self.class_tokens = class_tokens if class_token is None else int(class_token)
        self.leading = self.class_tokens + registers
        self.rope_base = rope_base if positions == "rope" else None
        self.clip_rope = positions == "clip_rope"
        self.antialias, self.final_norm, self.checkpointing = antialias, final_norm, checkpointing
        self.head_width = width // heads
        # A Linear on flattened patches is the strided convolution of the paper, and faster on a CPU.
        values = 3 * patch_size**2
        self.embed = nn.Linear(values, width) if tubelet == 1 else TubeletEmbedding(tubelet, values, width)
        self.class_token = nn.Parameter(torch.zeros(1, self.class_tokens, width)) if self.class_tokens else None
        self.positions: Tensor | None
        if positions == "learned":
            self.positions = nn.Parameter(torch.zeros(self.class_tokens + rows * columns, width))
        elif positions == "sincos":
            table = sincos_2d(width, rows, columns, class_token=self.class_tokens)
            self.register_buffer("positions", table, persistent=False)
        else:
            self.positions = None
        self.registers = nn.Parameter(torch.zeros(1, registers, width)) if registers else None
        self.pre_norm = nn.LayerNorm(width, eps=eps) if pre_norm else None
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                mlp_ratio=mlp_ratio,
                eps=eps,
                mlp=mlp,
                bias=bias,
                layer_scale=layer_scale,
                drop_path=drop_path * number / max(depth - 1, 1),
                qk_norm=qk_norm,
            )
            for number in range(depth)
        )
        self.norm = nn.LayerNorm(width, eps=eps) if final_norm else nn.Identity()
        count = {None: 0, "shared": 1, "block": depth}[relative_bias]
        self.relative = nn.ModuleList(RelativeBias(heads, self.grid, leading=self.leading) for _ in range(count))
        initialize(self)
        for tokens in (self.class_token, self.registers):
            if tokens is not None:
                nn.init.normal_(tokens, std=0.02)
        if isinstance(self.positions, nn.Parameter):
            nn.init.trunc_normal_(self.positions, std=0.02)

    def embed_patches(self, images: Float[Tensor, "B 3 S1 S2"]) -> Float[Tensor, "B N D"]:
        """Patches after the first linear layer, before positions."""
        return self.embed(patchify(images, self.patch_size))

    def forward(
        self,
        images: Float[Tensor, "B 3 S1 S2"],
        keep_ids: Int[Tensor, "B K"] | None = None,
        *,
        layers: bool = False,
        token_mask: Bool[Tensor, "B N"] | None = None,
        mask_token: Float[Tensor, " D"] | None = None,
        embeddings: Float[Tensor, "B N D"] | None = None,
        attention_mask: Bool[Tensor, "B1 1 T T"] | None = None,
    ) -> tuple[Float[Tensor, "B K D"], dict[str, Tensor]]:
        """Patch tokens after the final norm, and named outputs.

        These are `pooled` (the mean of the patch tokens) and `cls` (the class token, or the mean of several), both
        [B, D]; `class_tokens` [B, C, D] where there are several; `registers` [B, R, D] where there are any.

        Args:
            images: normalised; their size must be a multiple of P.
            keep_ids: patches to see, all if None; the others are dropped before the first block, positions included.
            layers: also return the patch tokens after every block, before the final norm, as `layer<k>` from 1.
            token_mask: True = `mask_token` stands in for the patch; positions are added after that.
            mask_token: of the objective, any shape that broadcasts to [B, N, D].
            embeddings: in place of `embed_patches(images)`; the images then only tell the grid.
            attention_mask: True = the token of the row may look at the one of the column; class tokens and registers
                are among the T tokens, first.
        """
        rows, columns = grid_of((images.shape[-2], images.shape[-1]), self.patch_size)
        table = None
        if self.positions is not None:
            table = resize_positions(self.positions, self.grid, (rows, columns), antialias=self.antialias)
        tokens = self._patches(images, table, keep_ids, token_mask, mask_token, embeddings)  # (B, K, D)
        tokens = self._lead(tokens, table)  # (B, T, D)
        if self.pre_norm is not None:
            tokens = self.pre_norm(tokens)
        rotation = self._rotation(rows, columns, keep_ids, tokens.device)
        out: dict[str, Tensor] = {}
        masks = self._masks(rows, columns, keep_ids, attention_mask)
        for number, (block, mask) in enumerate(zip(self.blocks, masks, strict=True), start=1):
            if self.checkpointing and self.training and torch.is_grad_enabled():
                tokens = checkpoint(block, tokens, rotation=rotation, mask=mask, use_reentrant=False)
            else:
                tokens = block(tokens, rotation=rotation, mask=mask)
            if layers:
                out[f"layer{number}"] = tokens[:, self.leading :]
        return self._outputs(tokens, out)

    def _patches(
        self,
        images: Tensor,
        table: Tensor | None,
        keep_ids: Tensor | None,
        token_mask: Tensor | None,
        mask_token: Tensor | None,
        embeddings: Tensor | None,
    ) -> Tensor:
        """Patches with their positions, those that are kept."""
        places = None if table is None else table[self.class_tokens :]
        if keep_ids is not None and embeddings is None and token_mask is None:
            # Dropped before they are embedded, which is the same with less work.
            tokens = self.embed(_chosen(patchify(images, self.patch_size), keep_ids))
            return tokens if places is None else tokens + F.embedding(keep_ids, places)
        tokens = self.embed_patches(images) if embeddings is None else embeddings  # (B, N, D)
        if token_mask is not None:
            if mask_token is None:
                raise ValueError("token_mask needs mask_token")
            tokens = torch.where(token_mask[..., None], mask_token.to(tokens.dtype), tokens)
        if places is not None:
            tokens = tokens + places
        return tokens if keep_ids is None else _chosen(tokens, keep_ids)

    def _lead(self, tokens: Tensor, table: Tensor | None) -> Tensor:
        """Class tokens with their positions, registers, patches."""
        parts = []
        if self.class_token is not None:
            parts.append(self.class_token if table is None else self.class_token + table[: self.class_tokens])
        if self.registers is not None:
            parts.append(self.registers)
        if not parts:
            return tokens
        # shape[0], not len(): an exported graph must take any number of images
        return torch.cat([*(part.expand(tokens.shape[0], -1, -1) for part in parts), tokens], dim=1)

    def _rotation(self, rows: int, columns: int, keep_ids: Tensor | None, device: torch.device) -> Rotation | None:
        """Rotary angles of every token; tokens that lead do not turn."""
        if self.clip_rope:
            cosine, sine = clip_rotary_angles(rows, columns, self.head_width, device=device)
        elif self.rope_base is not None:
            cosine, sine = rotary_angles(rows, columns, self.head_width, base=self.rope_base, device=device)
        else:
            return None
        if keep_ids is not None:
            cosine, sine = cosine[keep_ids][:, None], sine[keep_ids][:, None]  # (B, 1, K, E)
        shape = (*cosine.shape[:-2], self.leading, self.head_width)
        return torch.cat([cosine.new_ones(shape), cosine], dim=-2), torch.cat([sine.new_zeros(shape), sine], dim=-2)

    def _masks(
        self, rows: int, columns: int, keep_ids: Tensor | None, attention_mask: Tensor | None
    ) -> list[Tensor | None]:
        """What each block gets as its mask: the relative bias and the given mask in one."""
        if not self.relative:
            return [attention_mask] * len(self.blocks)
        masks: list[Tensor | None] = []
        for relative in self.relative:
            bias = relative(rows, columns)[None]  # (1, H, T, T)
            if keep_ids is not None:
                leading = torch.arange(self.leading, device=keep_ids.device).expand(keep_ids.shape[0], -1)
                seen = torch.cat([leading, keep_ids + self.leading], dim=1)  # (B, T)
                bias = bias[0][:, seen[:, :, None], seen[:, None, :]].transpose(0, 1)  # (B, H, T, T)
            masks.append(bias if attention_mask is None else bias.masked_fill(~attention_mask, -torch.inf))
        return masks if len(masks) == len(self.blocks) else masks * len(self.blocks)

    def _outputs(self, tokens: Tensor, out: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        if self.final_norm is True:
            tokens = self.norm(tokens)
        classes, patches = tokens[:, : self.class_tokens], tokens[:, self.leading :]
        if self.final_norm == "class":
            classes = self.norm(classes)
        pooled = patches.mean(dim=1)
        out["pooled"] = self.norm(pooled) if self.final_norm == "pooled" else pooled
        if self.class_tokens:
            out["cls"] = classes[:, 0] if self.class_tokens == 1 else classes.mean(dim=1)
        if self.class_tokens > 1:
            out["class_tokens"] = classes
        if self.registers is not None:
            out["registers"] = tokens[:, self.class_tokens : self.leading]
        return patches, out


def grid_of(image_size: int | tuple[int, int], patch_size: int) -> tuple[int, int]:
    """Rows and columns of patches.

    Raises:
        ValueError: the size is no multiple of the patch size.
    """
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if height % patch_size or width % patch_size or height < patch_size or width < patch_size:
        shown = height if height == width else (height, width)
        raise ValueError(f"image_size must be a multiple of patch_size={patch_size}, got {shown}")
    return height // patch_size, width // patch_size


def _chosen(rows: Float[Tensor, "B N D"], keep_ids: Int[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    return rows.gather(1, keep_ids[..., None].expand(-1, -1, rows.shape[-1]))
