"""GR-1's pictures of the future. Legend: B batch, T steps, Q queries, N patches, P patch size, S image size, V values
of a patch, D width.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.models.block import Block
from embodied.models.positions import sincos_2d

EPSILON = 1e-6


class FutureDecoder(nn.Module):
    """From what the trunk makes of [OBS] to the patches of a frame: a small transformer, shared by all cameras.

    The queries' tokens stand before N copies of a learned token, which have fixed sine-cosine positions as MAE's
    decoder has them; a linear layer makes pixels of what becomes of the copies.

    Args:
        width: D, a multiple of 4.
        image_size: S.
        patch_size: P.
        depth, heads: of its blocks.

    Raises:
        UsageError: the sizes do not go together.
    """

    def __init__(self, width: int, *, image_size: int, patch_size: int, depth: int = 2, heads: int = 16) -> None:
        super().__init__()
        if patch_size < 1 or image_size < patch_size or image_size % patch_size:
            raise UsageError(
                f"objective.image_size must be a multiple of objective.patch_size, got {image_size} and {patch_size}"
            )
        if width % 4 or heads < 1 or width % heads:
            raise UsageError(
                f"encoder.width must be a multiple of 4 and of objective.decoder_heads={heads}, got {width}"
            )
        self.image_size, self.patch_size = image_size, patch_size
        side = image_size // patch_size
        self.embed = nn.Linear(width, width)
        self.mask_token = nn.Parameter(torch.zeros(width))
        self.blocks = nn.ModuleList(Block(width, heads, eps=1e-5) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.predict = nn.Linear(width, 3 * patch_size**2)
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(width, side, side, class_token=False), persistent=False)

    def forward(self, queries: Float[Tensor, "B T Q D"]) -> Float[Tensor, "B T N PPC"]:
        """Patches as `models.patches.patchify` orders them."""
        asked = self.embed(queries.flatten(0, 1))  # (B*T, Q, D)
        blank = (self.mask_token + self.positions).to(asked.dtype).expand(len(asked), -1, -1)  # (B*T, N, D)
        tokens = torch.cat([asked, blank], dim=1)
        for block in self.blocks:
            tokens = block(tokens)
        pixels = self.predict(self.norm(tokens[:, asked.shape[1] :]))
        return pixels.unflatten(0, queries.shape[:2])


def standardized_patches(patches: Float[Tensor, "*batch N V"]) -> Float[Tensor, "*batch N V"]:
    """Each patch minus its mean, over its deviation, as the released code has it.

    The variance is the unbiased one, and epsilon is added to its root; in MAE epsilon is under the root.
    """
    mean = patches.mean(dim=-1, keepdim=True)
    return (patches - mean) / (patches.var(dim=-1, unbiased=True, keepdim=True).sqrt() + EPSILON)


def restored_patches(
    standardized: Float[Tensor, "*batch N V"], patches: Float[Tensor, "*batch N V"]
) -> Float[Tensor, "*batch N V"]:
    """The inverse of `standardized_patches`, with the means and deviations of `patches`."""
    deviation = patches.var(dim=-1, unbiased=True, keepdim=True).sqrt() + EPSILON
    return standardized * deviation + patches.mean(dim=-1, keepdim=True)
