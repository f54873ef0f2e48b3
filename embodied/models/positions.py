"""Positions of patches. Legend: N patches, D width, H heads, E = D / H, C class tokens, T tokens."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F


def sincos_2d(width: int, rows: int, columns: int, *, class_token: bool | int) -> Float[Tensor, "N D"]:
    """The sine-cosine table of MAE: the first half of the width encodes the COLUMN, the second half the row.

    Each half is [sin, cos] of position / 10000^(2k/D'), D' = half the width. Class tokens, one or as many as said, get
    rows of zeros first.
    Source: He et al. 2022, facebookresearch/mae `util/pos_embed.py` (its meshgrid puts the column first, so a table
    with the row first does not fit the released weights).
    """
    if width % 4:
        raise ValueError(f"width must be a multiple of 4 for 2-D sine-cosine positions, got {width}")
    quarter = width // 4
    frequency = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    halves = []
    for position in (column.flatten(), row.flatten()):
        angle = position[:, None] * frequency[None, :]  # (N, D/4)
        halves += [angle.sin(), angle.cos()]
    table = torch.cat(halves, dim=1).float()  # (N, D)
    return torch.cat([torch.zeros(int(class_token), width), table]) if class_token else table


def resize_positions(
    table: Float[Tensor, "T D"], old: tuple[int, int], new: tuple[int, int], *, antialias: bool = False
) -> Float[Tensor, "T2 D"]:
    """A table of positions for another grid: bicubic between patches; rows of class tokens, which lead, stay.

    The new size is given, not a scale: so do MAE's fine-tuning and `transformers`. DINOv2's own code without registers
    gives the scale (new + 0.1) / old instead, which moves values by next to nothing; with registers it antialiases.
    """
    if old == new:
        return table
    leading = len(table) - old[0] * old[1]
    grid = table[leading:].T.unflatten(1, old)[None].float()  # (1, D, rows, columns)
    grid = F.interpolate(grid, size=new, mode="bicubic", align_corners=False, antialias=antialias)
    return torch.cat([table[:leading], grid[0].flatten(1).T.to(table.dtype)])


def rotary_angles(
    rows: int, columns: int, head_width: int, *, base: float = 100.0, device: torch.device | None = None
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Cosine and sine of DINOv3's two-dimensional rotary positions.

    The centres of the patches lie in [-1, 1] along either axis whatever the resolution, so no table has to be resized.
    A quarter of E turns with the row, a quarter with the column, and the second half repeats the first.
    Source: Siméoni et al. 2025 (arXiv 2508.10104), Sec. 3.2. Its random shift, jitter and scale of the coordinates
    in training are not here.
    """
    if head_width % 4:
        raise ValueError(f"width / heads must be a multiple of 4 for rotary positions, got {head_width}")
    frequency = 1 / base ** torch.arange(0, 1, 4 / head_width, dtype=torch.float32, device=device)  # (E/4,)
    centres = [
        2 * (torch.arange(count, dtype=torch.float32, device=device) + 0.5) / count - 1 for count in (rows, columns)
    ]
    grid = torch.stack(torch.meshgrid(*centres, indexing="ij"), dim=-1).flatten(0, 1)  # (N, 2)
    angles = (2 * math.pi * grid[:, :, None] * frequency).flatten(1).repeat(1, 2)  # (N, E)
    return angles.cos(), angles.sin()


def clip_rotary_angles(
    rows: int, columns: int, head_width: int, *, device: torch.device | None = None
) -> tuple[Float[Tensor, "N E"], Float[Tensor, "N E"]]:
    """Cosine and sine of V-JEPA 2's rotary positions in time, row and column, at the first step of a clip.

    A third of E, rounded down to pairs, belongs to each axis, and what is left does not turn. At step 0 the first third
    does not either. Rows and columns count from 0, and frequencies fall from 1 to 1/10000. As in the released code the
    two elements of a pair have two frequencies (each axis repeats its frequencies as a whole, not one by one), so this
    is no rotation; weights were trained with it.

    There neighbours are pairs; here element i is paired with i + E/2 (`rotate`), so `pair_order` says which of theirs
    stands at which place of ours.
    Source: Assran et al. 2025 (arXiv 2506.09985), facebookresearch/vjepa2 `src/models/utils/modules.py`.
    """
    third = head_width // 3 // 2 * 2
    if not third:
        raise ValueError(f"width / heads must be at least 6 for rotary positions of clips, got {head_width}")
    frequency = 1 / 10000 ** (torch.arange(third // 2, dtype=torch.float32, device=device) / (third / 2))
    axes = torch.meshgrid(
        torch.arange(rows, dtype=torch.float32, device=device),
        torch.arange(columns, dtype=torch.float32, device=device),
        indexing="ij",
    )
    angles = torch.zeros(rows * columns, head_width, device=device)
    for number, place in enumerate(axes, start=1):
        angles[:, number * third : (number + 1) * third] = (place.flatten()[:, None] * frequency).repeat(1, 2)
    angles = angles[:, pair_order(head_width, device=device)]
    return angles.cos(), angles.sin()


def pair_order(head_width: int, *, device: torch.device | None = None) -> Int[Tensor, " E"]:
    """The order that brings neighbours (2i, 2i + 1) to places i and i + E/2; E must be even."""
    return torch.arange(head_width, device=device).unflatten(0, (-1, 2)).T.flatten()


def rotate(
    values: Float[Tensor, "B H T E"], rotation: tuple[Float[Tensor, "... E"], Float[Tensor, "... E"]]
) -> Float[Tensor, "B H T E"]:
    """Queries or keys turned by their angles; element i is paired with i + E/2."""
    cosine, sine = (part.to(values.dtype) for part in rotation)
    first, second = values.chunk(2, dim=-1)
    return values * cosine + torch.cat([-second, first], dim=-1) * sine


class RelativeBias(nn.Module):
    """BEiT's relative position bias: a learned logit per head and offset between two patches.

    Class tokens share three more: class to patch, patch to class, class to class. Source: Bao et al. 2022
    (arXiv 2106.08254), released code.
    """

    def __init__(self, heads: int, grid: tuple[int, int], *, leading: int) -> None:
        super().__init__()
        self.grid, self.leading = grid, leading
        self.offsets = (2 * grid[0] - 1) * (2 * grid[1] - 1)
        self.table = nn.Parameter(torch.zeros(self.offsets + 3 * bool(leading), heads))

    def forward(self, rows: int, columns: int) -> Float[Tensor, "H T T"]:
        """The bias for any grid; offsets between those of the table are interpolated bilinearly."""
        table = self.table[: self.offsets]
        height, width = 2 * rows - 1, 2 * columns - 1
        if (rows, columns) != self.grid:
            grid = table.T.unflatten(1, (2 * self.grid[0] - 1, 2 * self.grid[1] - 1))[None]
            table = F.interpolate(grid, size=(height, width), mode="bilinear")[0].flatten(1).T
        row = torch.arange(rows, device=table.device).repeat_interleave(columns)
        column = torch.arange(columns, device=table.device).repeat(rows)
        down = row[:, None] - row[None, :] + rows - 1  # (N, N)
        right = column[:, None] - column[None, :] + columns - 1
        bias = table[down * width + right].permute(2, 0, 1)  # (H, N, N)
        if not self.leading:
            return bias
        to_patch, to_class, among = (self.table[self.offsets + kind][:, None, None] for kind in range(3))
        patches = rows * columns
        above = torch.cat(
            [among.expand(-1, self.leading, self.leading), to_patch.expand(-1, self.leading, patches)], dim=2
        )
        below = torch.cat([to_class.expand(-1, patches, self.leading), bias], dim=2)
        return torch.cat([above, below], dim=1)
