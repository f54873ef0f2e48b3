"""Images as sequences of patches. Legend: B batch, S image size, P patch size, N patches, C channels."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F


def patchify(images: Float[Tensor, "B C S1 S2"], patch_size: int) -> Float[Tensor, "B N PPC"]:
    """Patches in raster order; inside a patch the values are ordered row, column, channel (MAE, Sec. 3)."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(patches: Float[Tensor, "B N PPC"], patch_size: int, rows: int) -> Float[Tensor, "B C S1 S2"]:
    """The inverse of `patchify` for `rows` rows of patches."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch_size, q=patch_size)


class TubeletEmbedding(nn.Linear):
    """The first layer of a network of videos, for an image that fills a tubelet: every frame of it is the same.

    The weight [D, F P P C] is that of tubelets of F frames, frame by frame a patch of `patchify`; over equal frames
    it acts as the sum of its parts.

    Args:
        frames: F of a tubelet.
        values: P P C of a patch.
        width: D.
    """

    def __init__(self, frames: int, values: int, width: int) -> None:
        super().__init__(frames * values, width)
        self.frames = frames

    def forward(self, patches: Float[Tensor, "B N PPC"]) -> Float[Tensor, "B N D"]:
        return F.linear(patches, self.weight.unflatten(1, (self.frames, -1)).sum(dim=1), self.bias)
