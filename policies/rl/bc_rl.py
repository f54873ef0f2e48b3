"""PPO that starts from demonstrations: actor and critic are fitted to them first, then PPO goes on.

Rajeswaran et al. 2018 (DAPG, arXiv 1709.10087), section 4: behaviour cloning as the initialisation of a policy
gradient. Departures: PPO instead of natural gradients; the critic is fitted to the demonstrations' returns, so that the
first updates are not led by a critic that knows nothing; their term that keeps demonstrations in the gradient is left
out. The Gaussian starts narrow: with the usual width it would act at random whatever its mean has learned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from torch.nn import functional as F

from embodied.core.errors import UsageError
from embodied.policies.rl import ppo
from embodied.policies.rl.settings import check_positive, check_whole

POLICY_CLASS = ppo.POLICY_CLASS
NEEDS_DEMONSTRATIONS = True


@dataclass(frozen=True, kw_only=True)
class BCRLAgent(ppo.FeaturesPPO):
    """PPO's settings and those of the cloning.

    Args:
        clone_steps: gradient steps on the demonstrations.
        clone_batch: samples of each.
        clone_learning_rate: of Adam.

    Raises:
        UsageError: one makes no sense.
    """

    learning_rate: float = 3e-4
    initial_std: float = 0.2
    clone_steps: int = 2000
    clone_batch: int = 256
    clone_learning_rate: float = 1e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "clone_batch")
        check_whole(self, "clone_steps", least=0)
        check_positive(self, "clone_learning_rate")

    def clone(
        self,
        algorithm: PPO,
        *,
        observations: np.ndarray,
        actions: np.ndarray,
        rewards: np.ndarray,
        lengths: Any,
        seed: int,
    ) -> dict[str, float]:
        """Fit actor and critic to demonstrations.

        Args:
            algorithm: untrained.
            observations: float32 [F, V + P], as the agent sees them.
            actions: float32 [F, A]; rewards: float32 [F].
            lengths: frames per episode; they add up to F.
            seed: of the order.

        Returns:
            Mean squared errors of action and value at the end.

        Raises:
            UsageError: there are no demonstrations.
        """
        if not len(observations):
            raise UsageError("policy=bc_rl needs demonstrations: demos must be at least 1")
        returns = discounted_returns(rewards, lengths, self.discount)
        rows = [torch.from_numpy(np.ascontiguousarray(part)).float() for part in (observations, actions, returns)]
        generator = torch.Generator().manual_seed(seed % 2**63)
        optimizer = torch.optim.Adam(algorithm.policy.parameters(), lr=self.clone_learning_rate)
        algorithm.policy.take_in(observations)
        algorithm.policy.set_training_mode(True)
        action_loss = value_loss = torch.zeros(())
        for _ in range(self.clone_steps):
            chosen = torch.randint(len(observations), (self.clone_batch,), generator=generator)
            seen, action, value = (part[chosen].to(algorithm.device) for part in rows)
            mean = algorithm.policy.get_distribution(seen).distribution.mean
            action_loss = F.mse_loss(mean, action)
            value_loss = F.mse_loss(algorithm.policy.predict_values(seen)[:, 0], value)
            optimizer.zero_grad(set_to_none=True)
            (action_loss + value_loss / returns.var().clip(1e-6)).backward()
            optimizer.step()
        return {"clone/action_error": float(action_loss.detach()), "clone/value_error": float(value_loss.detach())}


def discounted_returns(rewards: np.ndarray, lengths: Any, discount: float) -> np.ndarray:
    """What each step and those after it earn until its episode ends: float32 [F]."""
    returns = np.asarray(rewards, np.float32).copy()
    end = 0
    for length in lengths:
        start, end = end, end + length
        for step in range(end - 2, start - 1, -1):
            returns[step] += discount * returns[step + 1]
    return returns


AGENT = BCRLAgent
