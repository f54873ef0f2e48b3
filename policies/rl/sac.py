"""SAC on frozen features, through stable-baselines3: Haarnoja et al. 2018 (arXiv 1812.05905)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3 import SAC
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.sac.policies import SACPolicy

from embodied.policies.rl.networks import ProjectedFeatures
from embodied.policies.rl.off_policy import ReplaySettings
from embodied.policies.rl.schedules import StepSchedule
from embodied.policies.rl.settings import check_schedule, check_whole, check_widths

POLICY_CLASS = SACPolicy


@dataclass(frozen=True, kw_only=True)
class SACAgent(ReplaySettings):
    """Settings; the defaults are stable-baselines3's but where said.

    Args:
        buffer_steps: transitions that are kept (features, not frames).
        warmup_steps: random actions at the start.
        batch_size: of an update.
        train_every: steps of every environment between updates.
        updates: gradient steps then; -1: as many as transitions were collected.
        learning_rate, schedule: of actor, critics and temperature.
        discount, polyak: of SAC.
        n_step: rewards that a target adds up.
        hidden: layers of actor and critics.
        projection: width of the linear layers on features and on proprioception.
    """

    buffer_steps: int = 300_000
    warmup_steps: int = 5_000
    batch_size: int = 256
    train_every: int = 1
    updates: int = -1
    learning_rate: float = 3e-4
    schedule: str = "constant"
    discount: float = 0.99
    polyak: float = 0.005
    n_step: int = 1
    hidden: Sequence[int] = (256, 256)
    projection: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole(self, "projection")
        check_widths(self, "hidden")
        check_schedule(self.schedule)

    def network(self, *, feature_dim: int, normalise: bool) -> dict[str, Any]:
        """`policy_kwargs` for `POLICY_CLASS`."""
        extractor = {"feature_dim": feature_dim, "width": self.projection, "normalise": normalise}
        return {
            "features_extractor_class": ProjectedFeatures,
            "features_extractor_kwargs": extractor,
            "net_arch": list(self.hidden),
        }

    def build(
        self, environments: VecEnv, *, network: dict[str, Any], total_steps: int, seed: int, device: torch.device
    ) -> SAC:
        """The algorithm, untrained."""
        schedule = StepSchedule(self.learning_rate, shape=self.schedule, total_steps=total_steps)
        algorithm = SAC(
            POLICY_CLASS,
            environments,
            learning_rate=schedule,
            **self.replay_arguments(total_steps=total_steps),
            policy_kwargs=network,
            seed=seed,
            device=device,
        )
        schedule.algorithm = algorithm
        return algorithm


AGENT = SACAgent
