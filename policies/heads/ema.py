"""Exponential moving average of weights, as Diffusion Policy evaluates (https://arxiv.org/abs/2303.04137)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


class EMA(nn.Module):
    """Holds `average`, a copy of a module in eval mode whose weights follow those of the trained one.

    The decay of update k (from 0) is 1 - (1 + (k - 1) / inv_gamma)^-power, at least 0 and at most `max_decay`, and 0
    for the first two: with power 0.75 it reaches 0.999 after 10,000 updates. Batch-norm weights, parameters that are
    not trained and all buffers are copied.

    Source: real-stanford/diffusion_policy `ema_model.py` (copying buffers is a departure: there they stay as they
    were built). State, count included, is in the state dict.

    Another departure: `BCPolicy` averages its controller only. An encoder that learns acts with its newest weights; the
    reference averages its observation encoder along.

    Args:
        module: what is trained; it is copied, not kept.
    """

    def __init__(
        self, module: nn.Module, *, power: float = 0.75, inv_gamma: float = 1.0, max_decay: float = 0.9999
    ) -> None:
        super().__init__()
        self.average = copy.deepcopy(module).eval().requires_grad_(False)
        self.power, self.inv_gamma, self.max_decay = power, inv_gamma, max_decay
        self.updates: Tensor
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def decay(self, update: int) -> float:
        """The share of the old average that update number `update`, from 0, keeps."""
        step = update - 1
        return 0.0 if step <= 0 else min(1 - (1 + step / self.inv_gamma) ** -self.power, self.max_decay)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Call it after every optimiser step."""
        decay = self.decay(int(self.updates))
        for part, average in zip(module.modules(), self.average.modules(), strict=True):
            copied = isinstance(part, _BatchNorm)
            own = average.parameters(recurse=False)
            for new, old in zip(part.parameters(recurse=False), own, strict=True):
                old.copy_(new if copied or not new.requires_grad else torch.lerp(new, old, decay))
        for fresh, stale in zip(module.buffers(), self.average.buffers(), strict=True):
            stale.copy_(fresh)
        self.updates += 1

    def train(self, mode: bool = True) -> EMA:
        """The average stays in eval mode."""
        super().train(mode)
        self.average.eval()
        return self
