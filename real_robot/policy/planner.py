"""What the policy's process asks for actions: a policy of its own (`inference`), or one on another computer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from embodied.real_robot.policy.needs import Needs
from embodied.real_robot.policy.stages import Stages


class Planner(Protocol):
    """See `inference.Inference` for what each is."""

    needs: Needs
    stages: Stages
    how: str

    def restart(self) -> None:
        """Forget the episode."""

    def __call__(self, observation: Mapping[str, np.ndarray], /) -> np.ndarray:
        """What is planned from this step on, float64 [H, A]."""
