"""A transformer that draws patches. Legend: B batch, N patches, C values of a code, P patch size, D width."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from embodied.core.errors import UsageError
from embodied.models.block import Block, initialize
from embodied.models.patches import unpatchify
from embodied.models.positions import sincos_2d


class PatchDecoder(nn.Module):
    """A vector per patch to an image: positions, self-attention blocks, a linear head (ViT-VQGAN, arXiv 2110.04627).

    Args:
        inputs: C.
        patch_size: P.
        grid: rows and columns of patches.
        width, depth, heads: of the blocks.

    Raises:
        UsageError: the width is no multiple of heads.
    """

    def __init__(
        self, *, inputs: int, patch_size: int, grid: tuple[int, int], width: int, depth: int, heads: int
    ) -> None:
        super().__init__()
        if width % heads:
            raise UsageError(f"decoder_width must be a multiple of decoder_heads={heads}, got {width}")
        self.patch_size, self.grid = patch_size, grid
        self.embed = nn.Linear(inputs, width)
        self.positions: Tensor
        self.register_buffer("positions", sincos_2d(width, *grid, class_token=False), persistent=False)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, 3 * patch_size**2)
        initialize(self)

    def forward(self, vectors: Float[Tensor, "B N C"]) -> Float[Tensor, "B 3 S1 S2"]:
        tokens = self.embed(vectors) + self.positions
        for block in self.blocks:
            tokens = block(tokens)
        return unpatchify(self.head(self.norm(tokens)), self.patch_size, self.grid[0])
