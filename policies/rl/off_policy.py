"""What agents with a replay buffer share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from embodied.policies.rl.settings import check_positive, check_shares, check_whole


@dataclass(frozen=True, kw_only=True)
class ReplaySettings:
    """Settings that an agent gives defaults to.

    Args:
        buffer_steps: transitions that are kept.
        warmup_steps: random actions at the start.
        batch_size: of an update.
        train_every: steps of every environment between updates; `updates`: gradient steps then.
        learning_rate: of all parts.
        discount, polyak, n_step: of the critics' targets.

    Raises:
        UsageError: one makes no sense.
    """

    buffer_steps: int
    warmup_steps: int
    batch_size: int
    train_every: int
    updates: int
    learning_rate: float
    discount: float
    polyak: float
    n_step: int

    def __post_init__(self) -> None:
        check_whole(self, "buffer_steps", "batch_size", "train_every", "n_step")
        check_whole(self, "warmup_steps", least=0)
        if self.updates != -1:
            check_whole(self, "updates")
        check_positive(self, "learning_rate")
        check_shares(self, "discount", "polyak")

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
