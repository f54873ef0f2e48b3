"""Executing chunks: a queue of planned actions per environment, each at a step of its own.

Legend: B environments, R of them that plan now, H chunk, A action dimensions.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from embodied.core.seeding import torch_generator


class ChunkQueue(NamedTuple):
    """`actions` float [B, H, A], the next one first; `left` int64 [B], how many to execute before a new plan is made.

    Rows are independent, and an episode starts anew where a row is set to zero.
    """

    actions: Tensor
    left: Tensor


def initial_queue(batch_size: int, horizon: int, action_dim: int, *, like: Tensor) -> ChunkQueue:
    """Nothing is planned; dtype and device of `like`."""
    return ChunkQueue(
        like.new_zeros(batch_size, horizon, action_dim),
        torch.zeros(batch_size, dtype=torch.int64, device=like.device),
    )


def refill(queue: ChunkQueue, rows: Int[Tensor, " R"], chunk: Float[Tensor, "R H A"], *, execute: int) -> ChunkQueue:
    """The queue with new plans in some rows, of which `execute` actions are taken; the given one stays as it is."""
    return ChunkQueue(
        queue.actions.index_copy(0, rows, chunk),
        queue.left.index_fill(0, rows, execute),
    )


def advance(queue: ChunkQueue) -> tuple[ChunkQueue, Float[Tensor, "B H A"]]:
    """The queue after this step, and what is planned from this step on, the last action repeated at the end."""
    later = torch.cat([queue.actions[:, 1:], queue.actions[:, -1:]], dim=1)
    return ChunkQueue(later, queue.left - 1), queue.actions


def episode_keys(*observations: Tensor) -> Int[Tensor, " B"]:
    """A number per row, int64 on the CPU, from the bytes of observations [B, ...].

    It tells episodes apart by how they begin. So noise depends neither on how many environments run side by side nor
    on what ran in a slot before.
    """
    keys = []
    for row in range(len(observations[0])):
        digest = hashlib.sha256()
        for tensor in observations:
            digest.update(tensor[row].detach().cpu().contiguous().numpy().tobytes())
        keys.append(int.from_bytes(digest.digest()[:8], "little") >> 1)
    return torch.tensor(keys, dtype=torch.int64)


def episode_noise(
    keys: Int[Tensor, " R"], steps: Int[Tensor, " R"], shape: tuple[int, ...], *, like: Tensor
) -> Float[Tensor, "R ..."]:
    """Standard normal noise of steps of episodes: the same key and step, the same noise."""
    rows = [
        torch.randn(shape, generator=torch_generator(key, "act", step))
        for key, step in zip(keys.tolist(), steps.tolist(), strict=True)
    ]
    return torch.stack(rows).to(device=like.device, dtype=like.dtype)
