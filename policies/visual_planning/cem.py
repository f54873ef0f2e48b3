"""The cross-entropy method: draw plans, keep the best, draw around those.

Rubinstein 1999; for visual planning Ebert et al. 2018 (https://arxiv.org/abs/1812.00568), VP2 (Tian et al. 2023,
https://arxiv.org/abs/2304.13723) and V-JEPA 2-AC (Assran et al. 2025, https://arxiv.org/abs/2506.09985).

Legend: B environments, K candidates, H actions of a plan, A action.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.core.errors import UsageError, unknown_name
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
    taken,
)

Answer = Literal["best", "mean"]


@dataclass(frozen=True, kw_only=True)
class CEM:
    """A Gaussian over plans that moves to its best draws.

    The defaults are VP2's, but for the noise: 200 candidates, the best 5 %, three iterations, a deviation of half the
    way to the bounds, no momentum, and the best plan that was tried is the answer. V-JEPA 2-AC has 400 candidates, 10
    elites, 10 iterations, momentum 0.15, and answers with the mean.

    Ours: noise is white, where VP2's is correlated. The deviation is fitted for every action by itself, so with
    correlated draws it closes before plans are found whose actions differ: of a quadratic cost with such an optimum the
    largest error after eight iterations is 0.27 of the half range, with white noise 0.02. Correlated noise, where it is
    chosen, has unit variance here: VP2's has less, and the deviation of the elites would shrink by that every time. The
    present mean is always one of the candidates, and the deviation has a floor.

    Args:
        samples: K.
        elites: how many of them the Gaussian moves to.
        iterations: draws one after the other.
        std: deviation at first, in halves of the range between the bounds.
        floor: of the deviation, in the same unit.
        momentum: of the old mean and deviation, in [0, 1).
        noise, beta: see `shaped_noise`.
        answer: the `best` plan that was tried, or the `mean` in the end.
    """

    samples: int = 200
    elites: int = 10
    iterations: int = 3
    std: float = 0.5
    floor: float = 0.02
    momentum: float = 0.0
    noise: NoiseKind = "white"
    beta: float = 0.5
    answer: Answer = "best"

    def __post_init__(self) -> None:
        check_counts(samples=self.samples, elites=self.elites, iterations=self.iterations)
        check_noise(self.noise, self.beta)
        if self.elites > self.samples:
            raise UsageError(f"elites of a planner must be at most its samples={self.samples}, got {self.elites}")
        if not self.std > 0 or not 0 <= self.floor <= self.std:
            raise UsageError(
                f"std of a planner must be positive and floor in [0, std], got {self.std} and {self.floor}"
            )
        if not 0 <= self.momentum < 1:
            raise UsageError(f"momentum of a planner must be in [0, 1), got {self.momentum}")
        if self.answer not in get_args(Answer):
            raise unknown_name("answer of a planner", str(self.answer), get_args(Answer))

    @property
    def draws(self) -> int:
        """How often it draws for a plan."""
        return self.iterations

    def plan(self, score: Score, mean: Float[Tensor, "B H A"], bounds: Bounds, draw: Draw) -> Plan:
        """The plan found from `mean` on."""
        half = bounds.half_range(mean)
        mean = bounds.clip(mean)
        std = (self.std * half).expand_as(mean)
        best: Plan | None = None
        for iteration in range(self.iterations):
            noise = shaped_noise(draw(iteration, self.samples), self.noise, self.beta, unit=True)
            noise[:, 0] = 0  # the mean itself
            candidates = bounds.clip(mean[:, None] + std[:, None] * noise)  # (B, K, H, A)
            costs = finite_costs(score(candidates))
            order = costs.argsort(dim=1, stable=True)
            best = _better(best, candidates, costs, order[:, 0])
            elites = torch.stack([taken(candidates, order[:, rank]) for rank in range(self.elites)], dim=1)
            mean = self.momentum * mean + (1 - self.momentum) * elites.mean(dim=1)
            spread = self.momentum * std + (1 - self.momentum) * elites.std(dim=1, correction=0)
            std = torch.maximum(spread, self.floor * half)
        assert best is not None
        if self.answer == "best":
            return best
        return Plan(actions=mean, cost=finite_costs(score(mean[:, None]))[:, 0])


def _better(best: Plan | None, candidates: Tensor, costs: Tensor, index: Tensor) -> Plan:
    """The best plan of each row so far; of equals the earlier."""
    found = Plan(actions=taken(candidates, index), cost=taken(costs, index))
    if best is None:
        return found
    better = found.cost < best.cost
    return Plan(
        actions=torch.where(better[:, None, None], found.actions, best.actions),
        cost=torch.where(better, found.cost, best.cost),
    )
