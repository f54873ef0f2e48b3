"""Exchange between the processes of a run; with one process nothing changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.distributed
from torch import Tensor

_alone = ContextVar("alone", default=False)


@contextmanager
def alone() -> Iterator[None]:
    """Within the block this process exchanges nothing: for what one process computes while the others wait."""
    token = _alone.set(True)
    try:
        yield
    finally:
        _alone.reset(token)


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


def gather_from_processes(value: Tensor) -> list[Tensor]:
    """The `value` of every process, in their order, without gradients; numbers of rows may differ."""
    if not _together():
        return [value]
    processes = torch.distributed.get_world_size()
    rows = [torch.zeros(1, dtype=torch.long, device=value.device) for _ in range(processes)]
    torch.distributed.all_gather(rows, torch.tensor([len(value)], device=value.device))
    padded = value.new_zeros(max(int(count) for count in rows), *value.shape[1:])
    padded[: len(value)] = value
    parts = [torch.empty_like(padded) for _ in range(processes)]
    torch.distributed.all_gather(parts, padded)
    return [part[: int(count)] for part, count in zip(parts, rows, strict=True)]


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized() and not _alone.get()
