"""Random shooting: plans drawn blindly, of which the best is taken. The baseline that a planner has to beat.

Legend: B environments, K candidates, H actions of a plan, A action.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from embodied.policies.visual_planning.sampling import Bounds, Draw, Plan, Score, check_counts, finite_costs, taken


@dataclass(frozen=True, kw_only=True)
class Shooting:
    """Plans drawn uniformly between the bounds, wherever the last one went. One sample is acting at random.

    Args:
        samples: K.
    """

    samples: int = 200

    def __post_init__(self) -> None:
        check_counts(samples=self.samples)

    @property
    def draws(self) -> int:
        """How often it draws for a plan."""
        return 1

    def plan(self, score: Score, mean: Float[Tensor, "B H A"], bounds: Bounds, draw: Draw) -> Plan:
        """The best of the drawn plans; `mean` gives the shape alone."""
        low, high = bounds.tensors(mean)
        uniform = torch.special.ndtr(draw(0, self.samples))  # of a normal number its rank, in [0, 1]
        candidates = bounds.clip(low + (high - low) * uniform)
        costs = finite_costs(score(candidates))
        index = costs.argsort(dim=1, stable=True)[:, 0]
        return Plan(actions=taken(candidates, index), cost=taken(costs, index))
