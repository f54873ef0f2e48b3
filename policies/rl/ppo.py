"""PPO with MVP's recipe, through stable-baselines3: on frozen features, or with an encoder learned from scratch.

Schulman et al. 2017 (arXiv 1707.06347); Xiao et al. 2022, "Masked Visual Pre-training for Motor Control" (arXiv
2203.06173; ir413/mvp `configs/ppo/train`, `mvp/ppo/ppo.py`). From scratch: Hansen et al. 2023, "On Pre-Training for
Visuo-Motor Control: Revisiting a Learning-from-Scratch Baseline" (arXiv 2212.05749), see `networks.LearnedFeatures` for
the encoder and `networks.ActorCritic` for its random shifts; the rollouts then hold frames, uint8.

Departures: MVP runs 256 environments for 32 steps on a GPU simulator; the same 8192 steps per iteration come from fewer
environments here, by `rollout_steps`. It bootstraps nothing at time limits; stable-baselines3 adds the value there.
From scratch: 64 px and shifts of 3 instead of 224 and 10, the same share of a frame; the value is not clipped,
since stable-baselines3's clipping stops the gradient where MVP's (the larger of both losses) lets it through, and the
augmentation's term would pull alone there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from embodied.core.errors import UsageError, unknown_name
from embodied.policies.rl.networks import (
    ActorCritic,
    Augmentation,
    LearnedFeatures,
    mvp_policy_arguments,
    scratch_policy_arguments,
)
from embodied.policies.rl.schedules import StepSchedule
from embodied.policies.rl.settings import check_positive, check_schedule, check_shares, check_whole
from embodied.policies.rl.stacked_frames import StackedFrames

POLICY_CLASS = ActorCritic


class StandardisingPPO(PPO):
    """stable-baselines3's; after an iteration's updates the policy takes in what was observed in it."""

    policy: ActorCritic

    def train(self) -> None:
        super().train()
        self.policy.take_in(self.rollout_buffer.observations)


@dataclass(frozen=True, kw_only=True)
class FeaturesPPO:
    """Settings; the defaults are MVP's for its Franka tasks.

    Args:
        rollout_steps: per environment and iteration.
        minibatches: per epoch over the steps of an iteration.
        epochs: over them.
        learning_rate, schedule: MVP: 1e-3 (Franka), 5e-4 (Kuka), falling along half a cosine.
        discount, gae_lambda, clip, entropy, value_weight, max_gradient: of PPO.
        value_clip: how far the value may move in an iteration, in units of the return; None: freely. MVP clips it like
            the ratio, which takes the many iterations that it has.
        initial_std: of the Gaussian that acts.
        projection: width of the linear layers on features and on proprioception.
        standardise: what the agent sees, by its running mean and deviation (`networks.Standardise`); MVP does not.

    Raises:
        UsageError: one makes no sense.
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
    value_clip: float | None = 0.1
    initial_std: float = 1.0
    projection: int = 128
    standardise: bool = False

    def __post_init__(self) -> None:
        check_whole(self, "rollout_steps", "minibatches", "epochs", "projection")
        check_positive(self, "learning_rate", "clip", "max_gradient", "initial_std")
        check_positive(self, "entropy", "value_weight", zero=True)
        if self.value_clip is not None:
            check_positive(self, "value_clip")
        check_shares(self, "discount", "gae_lambda")
        check_schedule(self.schedule)

    def network(self, *, feature_dim: int, normalise: bool) -> dict[str, Any]:
        """`policy_kwargs` for `POLICY_CLASS`."""
        arguments = mvp_policy_arguments(
            feature_dim=feature_dim, normalise=normalise, width=self.projection, standardise=self.standardise
        )
        return {**arguments, "log_std_init": self.log_std}

    @property
    def log_std(self) -> float:
        """Of the Gaussian, at first."""
        return float(torch.tensor(self.initial_std).log())

    def check(self, num_envs: int) -> None:
        """How the steps of an iteration of so many environments divide.

        Raises:
            UsageError: not into the minibatches, or a minibatch has one step, whose advantage has no deviation.
        """
        collected = self.rollout_steps * num_envs
        steps = f"the {collected} steps of an iteration ({num_envs} environments x {self.rollout_steps})"
        if collected % self.minibatches:
            raise UsageError(f"policy.minibatches={self.minibatches} does not divide {steps}")
        if collected == self.minibatches:
            raise UsageError(f"policy.minibatches={self.minibatches} leaves one of {steps} for each: at least two")

    def build(
        self, environments: VecEnv, *, network: dict[str, Any], total_steps: int, seed: int, device: torch.device
    ) -> PPO:
        """The algorithm, untrained. Raises UsageError: see `check`."""
        self.check(environments.num_envs)
        schedule = StepSchedule(self.learning_rate, shape=self.schedule, total_steps=total_steps)
        algorithm = StandardisingPPO(
            POLICY_CLASS,
            environments,
            learning_rate=schedule,
            n_steps=self.rollout_steps,
            batch_size=self.rollout_steps * environments.num_envs // self.minibatches,
            n_epochs=self.epochs,
            gamma=self.discount,
            gae_lambda=self.gae_lambda,
            clip_range=self.clip,
            clip_range_vf=None if network["features_extractor_class"] is LearnedFeatures else self.value_clip,
            ent_coef=self.entropy,
            vf_coef=self.value_weight,
            max_grad_norm=self.max_gradient,
            policy_kwargs=network,
            seed=seed,
            device=device,
        )
        schedule.algorithm = algorithm
        return algorithm


@dataclass(frozen=True, kw_only=True)
class PPOAgent(FeaturesPPO):
    """PPO's settings and those of `encoder=scratch`.

    Args:
        history: frames in a stack.
        image_size: pixels that frames are brought to.
        shift: pixels of the augmentation, at that size.
        augmentation: see `networks.ActorCritic`.

    Raises:
        UsageError: one makes no sense.
    """

    history: int = 1
    image_size: int = 64
    shift: int = 3
    augmentation: Augmentation = "consistency"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augmentation not in get_args(Augmentation):
            raise unknown_name("policy.augmentation", self.augmentation, get_args(Augmentation))
        for name, least in (("history", 1), ("image_size", 16), ("shift", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"policy.{name} must be at least {least}, got {getattr(self, name)}")

    def frames_network(self) -> dict[str, Any]:
        """`policy_kwargs` for `POLICY_CLASS` that reads frames."""
        arguments = scratch_policy_arguments(
            shift=self.shift, augmentation=self.augmentation, width=self.projection, standardise=self.standardise
        )
        return {**arguments, "log_std_init": self.log_std}

    def see_frames(self, environments: VecEnv, *, camera: str) -> StackedFrames:
        """Environments, with a history of frames if there is more than one, as an agent from scratch sees them."""
        return StackedFrames(environments, camera=camera, image_size=self.image_size, proprioception=True)


AGENT = PPOAgent
