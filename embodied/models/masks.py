"""Which patches are hidden. In a mask 1 = removed, 0 = kept. Legend: B batch, N patches, K kept."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def uniform_mask(
    noise: Float[Tensor, "B N"], mask_ratio: float
) -> tuple[Int[Tensor, "B K"], Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Keep the K = int(N * (1 - mask_ratio)) patches with the lowest noise.

    Returns:
        keep_ids: indices of the kept patches, in the order of their noise.
        restore_ids: position of each patch in [kept, removed], to put a shuffled sequence back in order.
        mask: 1 = removed.
    """
    batch, patches = noise.shape
    kept = int(patches * (1 - mask_ratio))
    order = noise.argsort(dim=1)
    restore_ids = order.argsort(dim=1)
    mask = torch.ones(batch, patches, device=noise.device)
    mask.scatter_(1, order[:, :kept], 0.0)
    return order[:, :kept], restore_ids, mask
