"""AdamW without a schedule: the road less scheduled (Defazio et al. 2024, https://arxiv.org/abs/2405.15682)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class ScheduleFreeAdamW(Optimizer):
    """AdamW whose average x is what one uses, while gradients are taken at y = (1 - beta1) z + beta1 x (Algorithm 1).

    The parameters hold y while training; `swap` puts x there and back. Weight decay acts at y (its Appendix B).

    Args:
        params: groups of parameters.
        lr: learning rate gamma, of each step: warm-up belongs to the caller.
        betas: beta1 of the interpolation and beta2 of the squared gradients.
        eps: added to their root.
        weight_decay: lambda.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._swapped: list[tuple[Tensor, Tensor]] = []

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of z, x and y."""
        assert closure is None and not self._swapped, "train on y: swap back first"
        for group in self.param_groups:
            for part in group["params"]:
                if part.grad is not None:
                    self._update(part, part.grad, group)

    def _update(self, y: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state, rate, (beta1, beta2) = self.state[y], group["lr"], group["betas"]
        if not state:
            state["z"], state["square"] = y.clone(), torch.zeros_like(y)
            state["step"], state["weights"] = torch.tensor(0.0), torch.tensor(0.0)
        state["step"] += 1
        square, z = state["square"], state["z"]
        square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        corrected = (square / (1 - beta2 ** float(state["step"]))).sqrt_().add_(group["eps"])
        direction = (gradient / corrected).add_(y, alpha=group["weight_decay"])
        state["weights"] += rate**2  # c_t = gamma_t^2 / sum of them: steps of the warm-up count less
        share = rate**2 / float(state["weights"]) if rate else 0.0
        x = (y - (1 - beta1) * z) / beta1
        z.sub_(direction, alpha=rate)
        x.lerp_(z, share)
        y.copy_((1 - beta1) * z + beta1 * x)

    @torch.no_grad()
    def swap(self) -> None:
        """Put the average x in place of y, or y back."""
        if self._swapped:
            for part, y in self._swapped:
                part.copy_(y)
            self._swapped = []
            return
        for group in self.param_groups:
            beta1 = group["betas"][0]
            for part in group["params"]:
                if self.state[part]:
                    self._swapped.append((part, part.clone()))
                    part.copy_((part - (1 - beta1) * self.state[part]["z"]) / beta1)
