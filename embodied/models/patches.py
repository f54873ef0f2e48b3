"""Images as sequences of patches. Legend: B batch, S image size, P patch size, N patches, C channels."""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Float
from torch import Tensor


def patchify(images: Float[Tensor, "B C S1 S2"], patch_size: int) -> Float[Tensor, "B N PPC"]:
    """Patches in raster order; inside a patch the values are ordered row, column, channel (MAE, Sec. 3)."""
    return rearrange(images, "b c (h p) (w q) -> b (h w) (p q c)", p=patch_size, q=patch_size)


def unpatchify(patches: Float[Tensor, "B N PPC"], patch_size: int, rows: int) -> Float[Tensor, "B C S1 S2"]:
    """The inverse of `patchify` for `rows` rows of patches."""
    return rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch_size, q=patch_size)
