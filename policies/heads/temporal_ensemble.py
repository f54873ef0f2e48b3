"""Temporal ensembling of chunks (Zhao et al. 2023, ACT, https://arxiv.org/abs/2304.13705, Algorithm 2).

The policy predicts a chunk every step; the action of a step is the weighted mean of all predictions that were made for
it, w_i = exp(-decay * i), i = 0 the oldest. A positive decay trusts the oldest most.

Legend: B batch, H chunk, A action dimensions.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

DECAY = 0.01  # the paper's m


class EnsembleCarry(NamedTuple):
    """Predictions so far for the present step and the H - 1 after it.

    `total` float [B, H, A] is their weighted sum, `weight` float [B, H] that of their weights, `number` int64 [B, H]
    how many there are. Rows of environments are independent: an episode starts anew where a row is set to zero.
    """

    total: Tensor
    weight: Tensor
    number: Tensor


def initial_ensemble(batch_size: int, horizon: int, action_dim: int, *, like: Tensor) -> EnsembleCarry:
    """The carry at the start of `batch_size` episodes, with the dtype and on the device of `like`."""
    return EnsembleCarry(
        like.new_zeros(batch_size, horizon, action_dim),
        like.new_zeros(batch_size, horizon),
        torch.zeros(batch_size, horizon, dtype=torch.int64, device=like.device),
    )


def ensemble(
    carry: EnsembleCarry,
    chunk: Float[Tensor, "B H A"],
    *,
    decay: float = DECAY,
    angles: Bool[Tensor, " A"] | None = None,
) -> tuple[EnsembleCarry, Float[Tensor, "B A"]]:
    """The next carry and the action of the present step, from the chunk that was predicted at it.

    Args:
        angles: True = radians without an end, where predictions that are whole turns apart are the same: older ones
            are brought to the turn of the new one, which is near the present state.
    """
    weight = torch.exp(-decay * carry.number.to(chunk.dtype))  # (B, H): this is prediction number `number`, from 0
    total = carry.total
    if angles is not None:
        earlier = carry.weight[..., None]
        turns = torch.round((chunk * earlier - total) / (2 * math.pi * earlier.clamp(min=1e-12)))
        total = total + torch.where(angles, 2 * math.pi * turns * earlier, 0.0)
    total = total + weight[..., None] * chunk
    weights = carry.weight + weight
    action = total[:, 0] / weights[:, 0, None]
    return EnsembleCarry(_shift(total), _shift(weights), _shift(carry.number + 1)), action


def _shift(values: Tensor) -> Tensor:
    """Drops the present step; the last of the chunk has no prediction yet."""
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)
