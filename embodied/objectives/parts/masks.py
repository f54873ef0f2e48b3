"""Which patches are hidden. Legend: B batch, N patches, K kept, G blocks of a coarse grid, T frames.

In a float mask 1 = removed; in a bool mask True = hidden. All randomness comes from noise or a CPU generator.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.models.masks import uniform_mask
from embodied.objectives.parts.settings import share

ATTEMPTS = 10  # of placing one block before giving up, as BEiT's released code


def grid_mask(
    noise: Float[Tensor, "B G"], mask_ratio: float, *, rows: int, columns: int, block: int
) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Hide whole squares of `block` x `block` patches (Pixio); with `block` 1 it is `uniform_mask` bit for bit.

    Args:
        noise: one number per square, squares in raster order; those with the lowest are kept.
        mask_ratio: share of removed squares; int(G * (1 - mask_ratio)) are kept.
        rows, columns: of patches; N = rows * columns.
        block: side of a square in patches; must divide rows and columns.

    Returns:
        What `models.masks.uniform_mask` returns, for patches.
    """
    if rows % block or columns % block:
        raise UsageError(f"grid must divide the {rows}x{columns} patches, got {block}")
    order = noise.argsort(dim=1)
    patch = torch.arange(rows * columns, device=noise.device).view(rows // block, block, columns // block, block)
    of_square = patch.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)  # (G, block * block): patches of each square
    ids = of_square[order].flatten(1)  # (B, N), kept squares first
    kept = int(noise.shape[1] * (1 - mask_ratio)) * block**2
    mask = torch.ones(len(noise), rows * columns, device=noise.device)
    mask.scatter_(1, ids[:, :kept], 0.0)
    return ids[:, :kept], ids.argsort(dim=1), mask


def block_mask(
    batch: int,
    *,
    rows: int,
    columns: int,
    counts: int | Int[Tensor, " B"],
    smallest: int,
    generator: torch.Generator,
    largest: int | None = None,
    aspect: float = 0.3,
    exact: bool = False,
) -> Bool[Tensor, "B N"]:
    """Rectangles, drawn until about `counts` patches are hidden (BEiT, Algorithm 1 and released code).

    The number of hidden patches never exceeds the count, and often falls a little short, since a block that does not
    fit is given up after ten attempts; `exact` completes it with single patches, as DINOv2 does.

    Args:
        batch: B.
        rows, columns: of patches.
        counts: patches to hide, one number or one per image; 0 hides none.
        smallest, largest: patches in a block; `largest` is by default what is still to be hidden.
        generator: a CPU generator.
        aspect: height over width lies log-uniformly between this and its inverse.
        exact: hide exactly `counts`.
    """
    wanted = [int(counts)] * batch if isinstance(counts, int) else [int(count) for count in counts]
    # Thousands of small draws: NumPy's are twenty times cheaper than torch's on single numbers.
    random = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
    masks = np.zeros((batch, rows, columns), bool)
    for mask, count in zip(masks, wanted, strict=True):
        hidden = 0
        while hidden < count:
            room = count - hidden if largest is None else min(count - hidden, largest)
            added = _add_block(mask, room, smallest, aspect, random)
            if not added:
                break
            hidden += added
        if exact and hidden < count:
            visible = np.flatnonzero(~mask)
            mask.reshape(-1)[random.permutation(visible)[: count - hidden]] = True
    return torch.from_numpy(masks.reshape(batch, rows * columns))


def _add_block(mask: np.ndarray, room: int, smallest: int, aspect: float, random: np.random.Generator) -> int:
    """Hide one rectangle in `mask` [rows, columns], in place; returns how many patches that hid, 0 if none fitted."""
    rows, columns = mask.shape
    for _ in range(ATTEMPTS):
        area = smallest + (room - smallest) * random.random()  # the ends may lie in either order
        ratio = math.exp(math.log(aspect) * (1 - 2 * random.random()))
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if not (0 < height < rows and 0 < width < columns):
            continue
        top, left = random.integers(rows - height + 1), random.integers(columns - width + 1)
        part = mask[top : top + height, left : left + width]
        added = height * width - int(part.sum())
        if 0 < added <= room:
            part[:] = True
            return added
    return 0


def multi_block_mask(
    batch: int,
    *,
    rows: int,
    columns: int,
    blocks: int,
    area: float,
    generator: torch.Generator,
    aspect: tuple[float, float] = (0.75, 1.5),
) -> Bool[Tensor, "B N"]:
    """The union of `blocks` rectangles of one size (V-JEPA, I-JEPA): the size is drawn per batch, places per image.

    Args:
        batch: B.
        rows, columns: of patches.
        blocks: rectangles per image; they may overlap.
        area: share of the grid that one rectangle takes.
        generator: a CPU generator.
        aspect: height over width, least and most, drawn uniformly.
    """
    share("area", area)
    ratio = aspect[0] + (aspect[1] - aspect[0]) * float(torch.rand((), generator=generator))
    patches = area * rows * columns
    height = min(max(1, round(math.sqrt(patches * ratio))), rows)
    width = min(max(1, round(math.sqrt(patches / ratio))), columns)
    top = torch.randint(rows - height + 1, (batch, blocks, 1), generator=generator)
    left = torch.randint(columns - width + 1, (batch, blocks, 1), generator=generator)
    row, column = torch.arange(rows), torch.arange(columns)
    in_rows = (row >= top) & (row < top + height)  # (B, blocks, rows)
    in_columns = (column >= left) & (column < left + width)  # (B, blocks, columns)
    return (in_rows[..., None] & in_columns[..., None, :]).any(dim=1).flatten(1)


def tube_mask(mask: Bool[Tensor, "B N"], frames: int) -> Bool[Tensor, "B TN"]:
    """The same patches hidden in every frame (VideoMAE): [frame, patch] in raster order."""
    return mask.repeat(1, frames)


def prefix_lengths(batch: int, patches: int, generator: torch.Generator) -> Int[Tensor, " B"]:
    """Lengths of the part that is seen from both sides, uniform over 1 to N - 1 (AIM)."""
    return torch.randint(1, patches, (batch,), generator=generator)


def prefix_attention(lengths: Int[Tensor, " B"], patches: int) -> Bool[Tensor, "B 1 N N"]:
    """True = the query (row) may look at the key (column): keys of the prefix, itself and what came before it."""
    index = torch.arange(patches, device=lengths.device)
    causal = index[None, :] <= index[:, None]  # (query, key)
    prefix = index < lengths[:, None]  # (B, key)
    return (causal[None] | prefix[:, None])[:, None]


def masked_ids(mask: Bool[Tensor, "B N"]) -> Int[Tensor, "B M"]:
    """Raster indices of the True patches, for masks with the same number in each image."""
    counts = mask.sum(dim=1)
    assert (counts == counts[0]).all(), counts
    return mask.nonzero()[:, 1].view(len(mask), -1)


__all__ = [
    "block_mask",
    "grid_mask",
    "masked_ids",
    "multi_block_mask",
    "prefix_attention",
    "prefix_lengths",
    "tube_mask",
    "uniform_mask",
]
