"""Learning rates over a training that is run in pieces; stable-baselines3 knows the progress of a piece only."""

from __future__ import annotations

from collections.abc import Callable
from math import cos, pi
from typing import Any

from embodied.core.errors import unknown_name

SHAPES: dict[str, Callable[[float], float]] = {
    "constant": lambda done: 1.0,
    "linear": lambda done: 1 - done,
    "cosine": lambda done: 0.5 * (1 + cos(pi * done)),
}


class StepSchedule:
    """A learning rate by the steps that the algorithm has taken, of all that it will take.

    stable-baselines3 calls it with the remaining share of the present `learn` call, which is ignored.

    Args:
        value: at the start.
        shape: see `SHAPES`.
        total_steps: of the whole training.
    """

    def __init__(self, value: float, *, shape: str, total_steps: int) -> None:
        if shape not in SHAPES:
            raise unknown_name("learning-rate schedule", shape, SHAPES)
        self._value, self._shape, self._total = value, SHAPES[shape], total_steps
        self.algorithm: Any = None  # set once it is built

    def __call__(self, _: float) -> float:
        done = self.algorithm.num_timesteps / self._total if self.algorithm is not None else 0.0
        return self._value * self._shape(min(done, 1.0))
