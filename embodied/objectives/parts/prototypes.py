"""The head of self-distillation. Legend: B samples, D width, H hidden, E bottleneck, V prototypes."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from embodied.objectives.parts.settings import at_least


class PrototypeHead(nn.Module):
    """Three linear layers with GELU, L2 norm, and cosines with V prototypes (DINO, Appendix C).

    Args:
        inputs: D.
        hidden: H; the papers' 2048.
        bottleneck: E; the papers' 256.
        prototypes: V.
        norm_last: prototypes have length 1; else each has a learned length, which starts at 1.
    """

    frozen: Tensor

    def __init__(self, *, inputs: int, hidden: int, bottleneck: int, prototypes: int, norm_last: bool = True) -> None:
        super().__init__()
        at_least(1, hidden=hidden, bottleneck=bottleneck)
        at_least(2, prototypes=prototypes)
        self.options: dict[str, Any] = {
            "inputs": inputs,
            "hidden": hidden,
            "bottleneck": bottleneck,
            "prototypes": prototypes,
            "norm_last": norm_last,
        }  # for another head like this one
        self.mlp = nn.Sequential(
            nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, hidden), nn.GELU(), nn.Linear(hidden, bottleneck)
        )
        self.directions = nn.Parameter(torch.empty(prototypes, bottleneck))
        self.lengths = nn.Parameter(torch.ones(prototypes), requires_grad=not norm_last)
        self.register_buffer("frozen", torch.tensor(True))
        for part in self.mlp:
            if isinstance(part, nn.Linear):
                nn.init.trunc_normal_(part.weight, std=0.02)
                nn.init.zeros_(part.bias)
        nn.init.trunc_normal_(self.directions, std=0.02)

    def forward(self, features: Float[Tensor, "B D"]) -> Float[Tensor, "B V"]:
        # While frozen, no gradient moves the prototypes; they stay part of the graph, as distributed training needs.
        moved = torch.where(self.frozen, self.directions.detach(), self.directions)
        unit = F.normalize(self.mlp(features).float(), dim=-1)
        return F.linear(unit, F.normalize(moved.float(), dim=-1)) * self.lengths
