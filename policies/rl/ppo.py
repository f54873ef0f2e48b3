"""PPO on frozen features with MVP's recipe, through stable-baselines3.

Schulman et al. 2017 (arXiv 1707.06347); Xiao et al. 2022, "Masked Visual Pre-training for Motor Control" (arXiv
2203.06173; ir413/mvp `configs/ppo/train`, `mvp/ppo/ppo.py`).

Departures: MVP runs 256 environments for 32 steps on a GPU simulator; the same 8192 steps per iteration come from fewer
environments here, by `rollout_steps`. It bootstraps nothing at time limits; stable-baselines3 adds the value there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.vec_env import VecEnv

from embodied.core.errors import UsageError
from embodied.policies.rl.networks import mvp_policy_arguments
from embodied.policies.rl.schedules import StepSchedule

POLICY_CLASS = ActorCriticPolicy


@dataclass(frozen=True, kw_only=True)
class PPOAgent:
    """Settings; the defaults are MVP's for its Franka tasks.

    Args:
        rollout_steps: per environment and iteration.
        minibatches: per epoch over the steps of an iteration.
        epochs: over them.
        learning_rate, schedule: MVP: 1e-3 (Franka), 5e-4 (Kuka), falling along half a cosine.
        discount, gae_lambda, clip, entropy, value_weight, max_gradient: of PPO; the value is clipped like the ratio.
        initial_std: of the Gaussian that acts.
        projection: width of the linear layers on features and on proprioception.
    """

    rollout_steps: int = 256
    minibatches: int = 4
    epochs: int = 10
    learning_rate: float = 1e-3
    schedule: str = "cosine"
    discount: float = 0.99
    gae_lambda: float = 0.95
    clip: float = 0.1
    entropy: float = 0.0
    value_weight: float = 1.0
    max_gradient: float = 1.0
    initial_std: float = 1.0
    projection: int = 128

    def network(self, *, feature_dim: int, normalise: bool) -> dict[str, Any]:
        """`policy_kwargs` for `POLICY_CLASS`."""
        arguments = mvp_policy_arguments(feature_dim=feature_dim, normalise=normalise, width=self.projection)
        return {**arguments, "log_std_init": float(torch.tensor(self.initial_std).log())}

    def build(
        self, environments: VecEnv, *, network: dict[str, Any], total_steps: int, seed: int, device: torch.device
    ) -> PPO:
        """The algorithm, untrained.

        Raises:
            UsageError: the steps of an iteration do not divide into the minibatches.
        """
        collected = self.rollout_steps * environments.num_envs
        if collected % self.minibatches:
            raise UsageError(
                f"policy.minibatches={self.minibatches} does not divide the {collected} steps of an iteration "
                f"({environments.num_envs} environments x {self.rollout_steps})"
            )
        schedule = StepSchedule(self.learning_rate, shape=self.schedule, total_steps=total_steps)
        algorithm = PPO(
            POLICY_CLASS,
            environments,
            learning_rate=schedule,
            n_steps=self.rollout_steps,
            batch_size=collected // self.minibatches,
            n_epochs=self.epochs,
            gamma=self.discount,
            gae_lambda=self.gae_lambda,
            clip_range=self.clip,
            clip_range_vf=self.clip,
            ent_coef=self.entropy,
            vf_coef=self.value_weight,
            max_grad_norm=self.max_gradient,
            policy_kwargs=network,
            seed=seed,
            device=device,
        )
        schedule.algorithm = algorithm
        return algorithm


AGENT = PPOAgent
