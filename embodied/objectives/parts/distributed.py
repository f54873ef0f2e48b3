"""Sums over the processes of a run; with one process they change nothing."""

from __future__ import annotations

import torch.distributed
from torch import Tensor


def sum_over_processes(value: Tensor) -> Tensor:
    """The sum of `value` over all processes, in place, without gradients."""
    if _together():
        torch.distributed.all_reduce(value)
    return value


def from_first_process(value: Tensor) -> Tensor:
    """The first process's `value`, in place: for random choices that all must share."""
    if _together():
        torch.distributed.broadcast(value, src=0)
    return value


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()
