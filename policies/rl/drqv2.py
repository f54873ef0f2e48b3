"""DrQ-v2: learning from pixels and from scratch, with random shifts, as an algorithm of stable-baselines3.

Yarats et al. 2021 (arXiv 2107.09645; facebookresearch/drqv2, MIT). Hansen et al. 2023 (arXiv 2212.05749) use it, with
an encoder of their own, as the learning-from-scratch baseline of frozen representations.

Equations: Eq. (1) the critic's n-step target, Eq. (2) the actor's loss, section 3.1 the schedule of the noise.

Departures:
    - the replay buffer keeps stacks of frames rather than single ones, so its default is smaller than the paper's 1e6
    - proprioception is ignored, as in the paper
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from stable_baselines3 import TD3
from stable_baselines3.common.utils import polyak_update
from stable_baselines3.common.vec_env import VecEnv
from torch import Tensor
from torch.nn import functional as F

from embodied.core.errors import unknown_name
from embodied.policies.rl.drqv2_networks import ENCODERS, DrQPolicy, random_shift
from embodied.policies.rl.off_policy import ReplaySettings
from embodied.policies.rl.schedules import StepSchedule
from embodied.policies.rl.settings import check_positive, check_whole
from embodied.policies.rl.stacked_frames import StackedFrames

_INSIDE = 1e-6  # noisy actions stay off the bounds, as coded

POLICY_CLASS = DrQPolicy


class DrQv2(TD3):
    """The algorithm: stable-baselines3's collection and n-step replay, DrQ-v2's update."""

    policy: DrQPolicy

    def __init__(self, *arguments: Any, shift: int, noise: tuple[float, float, int], noise_clip: float, **named: Any):
        self._shift, self._noise, self._noise_clip = shift, noise, noise_clip
        super().__init__(*arguments, **named)
        self.policy.noise = self.noise

    def _create_aliases(self) -> None:
        self.actor, self.critic, self.critic_target = self.policy.actor, self.policy.critic, self.policy.critic_target

    def _setup_model(self) -> None:
        super(TD3, self)._setup_model()
        self._create_aliases()

    def noise(self) -> float:
        """Section 3.1: the standard deviation falls along a line over the first steps."""
        first, last, steps = self._noise
        return first + (last - first) * min(self.num_timesteps / steps, 1.0)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        self._update_learning_rate([self.actor.optimizer, self.critic.optimizer])
        losses = []
        for _ in range(gradient_steps):
            self._n_updates += 1
            assert self.replay_buffer is not None
            data = self.replay_buffer.sample(batch_size)
            features = self.policy.encoder(random_shift(data.observations.float(), self._shift))
            with torch.no_grad():
                later = self.policy.encoder(random_shift(data.next_observations.float(), self._shift))
                action = self._noisy(self.actor(later))
                value = torch.min(*self.critic_target(later, action))
                discounts = self.gamma if data.discounts is None else data.discounts
                target = data.rewards + (1 - data.dones) * discounts * value  # Eq. (1)
            first, second = self.critic(features, data.actions)
            critic_loss = F.mse_loss(first, target) + F.mse_loss(second, target)
            self.critic.optimizer.zero_grad(set_to_none=True)
            critic_loss.backward()
            self.critic.optimizer.step()
            features = features.detach()  # the encoder learns from the critics alone
            actor_loss = -torch.min(*self.critic(features, self._noisy(self.actor(features)))).mean()  # Eq. (2)
            self.actor.optimizer.zero_grad(set_to_none=True)
            actor_loss.backward()
            self.actor.optimizer.step()
            polyak_update(self.critic.parameters(), self.critic_target.parameters(), self.tau)
            losses.append((critic_loss.item(), actor_loss.item()))
        critic_mean, actor_mean = (sum(column) / len(losses) for column in zip(*losses, strict=True))
        self.logger.record("train/critic_loss", critic_mean)
        self.logger.record("train/actor_loss", actor_mean)
        self.logger.record("train/noise", self.noise())
        self.logger.record("train/n_updates", self._n_updates)

    def _noisy(self, action: Tensor) -> Tensor:
        noise = (torch.randn_like(action) * self.noise()).clamp(-self._noise_clip, self._noise_clip)
        noisy = action + noise
        # As coded: the bounds cut values, not gradients, or an actor near them would learn from half of its samples.
        return noisy + (noisy.clamp(-1 + _INSIDE, 1 - _INSIDE) - noisy).detach()

    def _excluded_save_params(self) -> list[str]:
        return [*super(TD3, self)._excluded_save_params(), "actor", "critic", "critic_target"]


@dataclass(frozen=True, kw_only=True)
class DrQv2Agent(ReplaySettings):
    """Settings; the defaults are the paper's for its medium tasks but where said.

    Args:
        encoder: `drqv2` or `lfs`.
        history: frames in a stack.
        buffer_steps: transitions that are kept; paper: 1e6. 127 kB each with 3 frames of 84 px.
        warmup_steps: random actions at the start.
        batch_size, train_every, updates: of the updates; paper: one per two steps.
        learning_rate: of all parts.
        discount, n_step, polyak: of the critic's target.
        noise_first, noise_last, noise_steps: standard deviation of exploration, section 3.1.
        noise_clip: of the smoothing of targets.
        shift: pixels of the augmentation: 4 at 84 px; Hansen et al.: 10 at 224 px.
        trunk, hidden: widths.
    """

    encoder: str = "drqv2"
    history: int = 3
    buffer_steps: int = 100_000
    warmup_steps: int = 4_000
    batch_size: int = 256
    train_every: int = 2
    updates: int = 1
    learning_rate: float = 1e-4
    discount: float = 0.99
    n_step: int = 3
    polyak: float = 0.01
    noise_first: float = 1.0
    noise_last: float = 0.1
    noise_steps: int = 500_000
    noise_clip: float = 0.3
    shift: int = 4
    trunk: int = 50
    hidden: int = 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoder not in ENCODERS:
            raise unknown_name("policy.encoder", self.encoder, ENCODERS)
        check_whole(self, "history", "noise_steps", "trunk", "hidden")
        check_whole(self, "shift", least=0)
        check_positive(self, "noise_first", "noise_last", "noise_clip", zero=True)

    def frames_network(self) -> dict[str, Any]:
        """`policy_kwargs` for `POLICY_CLASS`."""
        return {"encoder": self.encoder, "trunk": self.trunk, "hidden": self.hidden}

    def see_frames(self, environments: VecEnv, *, camera: str) -> StackedFrames:
        """Environments with a history of frames as the agent sees them."""
        return StackedFrames(environments, camera=camera)

    def build(
        self, environments: VecEnv, *, network: dict[str, Any], total_steps: int, seed: int, device: torch.device
    ) -> DrQv2:
        """The algorithm, untrained."""
        schedule = StepSchedule(self.learning_rate, shape="constant", total_steps=total_steps)
        return DrQv2(
            POLICY_CLASS,
            environments,
            shift=self.shift,
            noise=(self.noise_first, self.noise_last, self.noise_steps),
            noise_clip=self.noise_clip,
            learning_rate=schedule,
            **self.replay_arguments(total_steps=total_steps),
            policy_kwargs=network,
            seed=seed,
            device=device,
        )


AGENT = DrQv2Agent
