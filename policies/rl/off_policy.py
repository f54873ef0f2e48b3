"""What agents with a replay buffer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Settings that an agent gives defaults to.

    Args:
        buffer_steps: transitions that are kept.
        warmup_steps: random actions at the start.
        batch_size: of an update.
        train_every: steps of every environment between updates; `updates`: gradient steps then.
        discount, polyak, n_step: of the critics' targets.
    """

    buffer_steps: int
    warmup_steps: int
    batch_size: int
    train_every: int
    updates: int
    discount: float
    polyak: float
    n_step: int

    def replay_arguments(self, *, total_steps: int) -> dict[str, Any]:
        """Arguments of stable-baselines3's algorithm; the buffer is no larger than what will be collected."""
        return {
            "buffer_size": min(self.buffer_steps, total_steps),
            "learning_starts": self.warmup_steps,
            "batch_size": self.batch_size,
            "tau": self.polyak,
            "gamma": self.discount,
            "train_freq": self.train_every,
            "gradient_steps": self.updates,
            "n_steps": self.n_step,
        }
