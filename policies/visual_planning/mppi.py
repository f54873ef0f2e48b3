"""Model predictive path integral control: the mean of drawn plans, each weighted by how little it costs.

Williams et al. 2016; for visual planning as in VP2 (Tian et al. 2023, https://arxiv.org/abs/2304.13723), which has it
from Nagabandi et al. 2019 (https://arxiv.org/abs/1909.11652).

Legend: B environments, K candidates, H actions of a plan, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.policies.visual_planning.sampling import (
    Bounds,
    Draw,
    NoiseKind,
    Plan,
    Score,
    check_counts,
    check_noise,
    finite_costs,
    shaped_noise,
)


@dataclass(frozen=True, kw_only=True)
class MPPI:
    """A weighted mean, the weight of a plan falling exponentially with its cost.

    The defaults are VP2's, whose cost is the sum of squared errors of all pixels in [0, 1] (`costs.PixelCost` with
    `over="all"`): for other costs `gamma` means something else, unless `standardise`. Ours: the present mean is always
    one of the candidates.

    Args:
        samples: K.
        gamma: weights are exp(-gamma cost).
        standardise: divide the costs of an environment by their standard deviation first.
        iterations: draws one after the other, each around the mean that the one before found.
        std: deviation of the draws, in halves of the range between the bounds.
        noise, beta: see `shaped_noise`.
    """

    samples: int = 200
    gamma: float = 0.05
    standardise: bool = False
    iterations: int = 1
    std: float = 0.5
    noise: NoiseKind = "correlated"
    beta: float = 0.5

    def __post_init__(self) -> None:
        check_counts(samples=self.samples, iterations=self.iterations)
        check_noise(self.noise, self.beta)
        if not self.std > 0 or not self.gamma > 0:
            raise UsageError(f"std and gamma of a planner must be positive, got {self.std} and {self.gamma}")

    @property
    def draws(self) -> int:
        """How often it draws for a plan."""
        return self.iterations

    def plan(self, score: Score, mean: Float[Tensor, "B H A"], bounds: Bounds, draw: Draw) -> Plan:
        """The plan found from `mean` on."""
        mean = bounds.clip(mean)
        std = self.std * bounds.half_range(mean)
        cost = mean.new_zeros(len(mean))
        for iteration in range(self.iterations):
            noise = shaped_noise(draw(iteration, self.samples), self.noise, self.beta)
            noise[:, 0] = 0  # the mean itself
            candidates = bounds.clip(mean[:, None] + std * noise)  # (B, K, H, A)
            weights, costs = self._weights(finite_costs(score(candidates)))
            mean = (weights[..., None, None] * candidates).sum(dim=1)
            cost = (weights * costs).sum(dim=1)
        return Plan(actions=bounds.clip(mean), cost=cost)

    def _weights(self, costs: Float[Tensor, "B K"]) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
        scaled = costs
        if self.standardise:
            spread = costs.std(dim=1, correction=0, keepdim=True)
            scaled = costs / torch.where(spread > 0, spread, torch.ones_like(spread))
        return torch.softmax(-self.gamma * (scaled - scaled.amin(dim=1, keepdim=True)), dim=1), costs
