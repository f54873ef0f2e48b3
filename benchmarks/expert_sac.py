"""stable-baselines3's SAC, its gradient steps in two thirds of the time: see train_experts.py."""

from __future__ import annotations

from math import log, pi

import torch
from stable_baselines3 import SAC
from torch import Tensor
from torch.nn.functional import mse_loss

_LOG_STD = (-20.0, 2.0)  # stable-baselines3's bounds
_SMALL = 1e-6  # and its guard against the logarithm of 0


class LeanSAC(SAC):
    """The same update without distribution objects, records and the critic's gradients of the actor's loss.

    For a constant learning rate, a learnt entropy coefficient, one-step returns, and states and actions that are
    vectors. Departure: the steps between two episodes share one draw from the memory, cut into batches.
    """

    def train(self, gradient_steps: int, batch_size: int = 64) -> None:
        drawn = self.replay_buffer.sample(gradient_steps * batch_size)
        parts = (drawn.observations, drawn.actions, drawn.rewards, drawn.next_observations, drawn.dones)
        for batch in zip(*(part.split(batch_size) for part in parts), strict=True):
            self._gradient_step(*batch)
        self._n_updates += gradient_steps

    def _gradient_step(self, states: Tensor, actions: Tensor, rewards: Tensor, reached: Tensor, dones: Tensor) -> None:
        temperature = self.log_ent_coef.detach().exp()
        wanted, log_prob = self._sample(states)  # (B, A), (B, 1)
        self.log_ent_coef.grad = -(log_prob.detach() + self.target_entropy).mean().reshape(1)
        self.ent_coef_optimizer.step()
        with torch.no_grad():
            following, following_log_prob = self._sample(reached)
            values = torch.minimum(*self._values(self.critic_target, reached, following))  # (B, 1)
            goal = rewards + (1 - dones) * self.gamma * (values - temperature * following_log_prob)
        critic, actor = list(self.critic.parameters()), list(self.actor.parameters())
        first, second = self._values(self.critic, states, actions)
        _descend(self.critic.optimizer, critic, 0.5 * (mse_loss(first, goal) + mse_loss(second, goal)))
        values = torch.minimum(*self._values(self.critic, states, wanted))
        _descend(self.actor.optimizer, actor, (temperature * log_prob - values).mean())
        with torch.no_grad():
            for slow, fast in zip(self.critic_target.parameters(), critic, strict=True):
                slow.lerp_(fast, self.tau)

    def _sample(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Actions [B, A] and their log densities [B, 1]."""
        hidden = self.actor.latent_pi(states)
        mean, log_std = self.actor.mu(hidden), self.actor.log_std(hidden).clamp(*_LOG_STD)
        noise = torch.randn_like(mean)
        action = torch.tanh(mean + log_std.exp() * noise)
        density = -0.5 * noise**2 - log_std - 0.5 * log(2 * pi) - torch.log(1 - action**2 + _SMALL)
        return action, density.sum(1, keepdim=True)

    @staticmethod
    def _values(critic: torch.nn.Module, states: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([states, actions], 1)
        return critic.qf0(both), critic.qf1(both)


def _descend(optimizer: torch.optim.Optimizer, parameters: list[Tensor], loss: Tensor) -> None:
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()
