"""Teachers that follow a student, and what keeps them from collapse. Legend: B samples, D width, V classes."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from embodied.objectives.parts.distributed import sum_over_processes


class Teacher(nn.Module):
    """An exponential moving average of a module: in eval mode, without gradients, in the state dict as a whole.

    Args:
        student: what is followed; it is copied, not kept.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False).eval()

    @torch.no_grad()
    def forward(self, *args: Any, **options: Any) -> Any:
        """What the average makes of the input."""
        return self.module(*args, **options)

    @torch.no_grad()
    def update(self, student: nn.Module, momentum: float) -> None:
        """Keep the share `momentum` of the average; buffers are copied."""
        for average, part in zip(self.module.parameters(), student.parameters(), strict=True):
            average.lerp_(part.detach(), 1 - momentum)
        for old, new in zip(self.module.buffers(), student.buffers(), strict=True):
            old.copy_(new)

    def train(self, mode: bool = True) -> Teacher:
        """The average stays in eval mode."""
        super().train(mode)
        self.module.eval()
        return self


class Centre(nn.Module):
    """The moving average of a teacher's outputs, which is taken from them before the softmax (DINO Eq. 4).

    Args:
        classes: V.
        momentum: share of the old centre that a step keeps.
    """

    def __init__(self, classes: int, *, momentum: float = 0.9) -> None:
        super().__init__()
        self.momentum = momentum
        self.value: Tensor
        self.register_buffer("value", torch.zeros(classes))
        self._pending: list[tuple[Tensor, int]] = []

    @torch.no_grad()
    def forward(self, outputs: Float[Tensor, "B V"], temperature: Float[Tensor, ""]) -> Float[Tensor, "B V"]:
        """Targets, with the centre as it was at the end of the last step; the outputs are noted for `update`."""
        if self.training:
            self._pending.append((outputs.float().sum(dim=0), len(outputs)))
        return ((outputs.float() - self.value) / temperature).softmax(dim=-1)

    @torch.no_grad()
    def update(self) -> None:
        """Move the centre by what all parts of the batch and all processes saw in this step."""
        if not self._pending:
            return
        total = sum_over_processes(torch.stack([part for part, _ in self._pending]).sum(dim=0))
        count = sum_over_processes(torch.tensor(float(sum(size for _, size in self._pending)), device=total.device))
        self._pending = []
        self.value.lerp_(total / count, 1 - self.momentum)


@torch.no_grad()
def sinkhorn(
    outputs: Float[Tensor, "B V"], temperature: Float[Tensor, ""] | float, *, iterations: int = 3
) -> Float[Tensor, "B V"]:
    """Targets that use all classes alike over the samples of all processes, each row summing to 1 (SwAV, DINOv2).

    Args:
        outputs: of the teacher, at least one row in all.
        temperature: they are divided by.
        iterations: rounds of scaling classes, then samples.
    """
    logits = outputs.float() / temperature
    # Any constant over all samples cancels; one per process would not, so it is the bound that cosines have.
    shares = (logits - 1 / temperature).exp()  # (B, V)
    samples = sum_over_processes(torch.tensor(float(len(shares)), device=shares.device))
    shares = shares / sum_over_processes(shares.sum()).clamp(min=1e-30)
    for _ in range(iterations):
        shares = shares / sum_over_processes(shares.sum(dim=0)).clamp(min=1e-30) / shares.shape[1]
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1e-30) / samples
    return shares * samples


@torch.no_grad()
def entropy(probabilities: Float[Tensor, "B V"]) -> Float[Tensor, ""]:
    """Mean entropy of the rows: 0 for one-hot collapse, log V for uniform collapse."""
    return -(probabilities * probabilities.clamp(min=1e-12).log()).sum(dim=-1).mean()


@torch.no_grad()
def feature_spread(features: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
    """Standard deviation over samples of L2-normalised features, times sqrt(D): about 1 when healthy, 0 collapsed."""
    unit = nn.functional.normalize(features.float(), dim=-1)
    return unit.std(dim=0, unbiased=False).mean() * features.shape[1] ** 0.5
