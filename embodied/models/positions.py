"""Fixed position embeddings."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_2d(width: int, rows: int, columns: int, *, class_token: bool) -> Float[Tensor, "N D"]:
    """The sine-cosine table of MAE: the first half of the width encodes the COLUMN, the second half the row.

    Each half is [sin, cos] of position / 10000^(2k/D'), D' = half the width. A class token gets a row of zeros first.
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
    return torch.cat([torch.zeros(1, width), table]) if class_token else table
