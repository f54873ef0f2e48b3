"""Other goals for what was done: hindsight experience replay (Andrychowicz et al. 2017, arXiv 1707.01495).

For adroit's pen, whose goal is a direction that stands in the state: a third of a turn is hardly ever found by chance,
but every motion of the pen shows how to reach the directions it came to. Used by train_experts.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from expert_env import Settings, StateEnv, learnt_reward
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import ReplayBufferSamples

from embodied.core.errors import UsageError

# Where the pen's state has them, in gymnasium-robotics' `_get_obs`; the offsets are what is reached less the goal.
_PLACE, _PLACE_OFFSET = slice(24, 27), slice(39, 42)
_DIRECTION, _GOAL, _DIRECTION_OFFSET = slice(33, 36), slice(36, 39), slice(42, 45)
# Of the pen's dense reward: metres from its place, cosines to the goal with the bonuses, height of a dropped pen.
_NEAR, _BONUSES, _DROPPED, _FINE = 0.075, ((0.9, 10.0), (0.95, 50.0)), 0.075, 5.0


class HindsightBuffer(ReplayBuffer):
    """Remembers steps; in a share `settings.hindsight` of those it draws the goal is what the episode reached later.

    Every reward is computed anew from the state that a step led to, repeated actions counting once.

    Args:
        others, options: as of SB3's ReplayBuffer.
        env: of the training, whose units its states have.
        settings: of the training; its task must be adroit's pen.

    Raises:
        UsageError: the task is another one.
    """

    def __init__(self, *others: Any, env: StateEnv, settings: Settings, **options: Any) -> None:
        if (settings.suite, settings.task) != ("adroit", "pen"):
            raise UsageError(f"hindsight is for the pen of adroit, got {settings.task} of {settings.suite}")
        super().__init__(*others, **options)
        self._settings = settings
        self._mean, self._unit = (np.broadcast_to(value, self.obs_shape) for value in (env.mean, env.unit))
        self._ends = np.zeros(0, np.int64)
        self._ends_at = (0, False)

    def _get_samples(self, batch_inds: np.ndarray, env: Any = None) -> ReplayBufferSamples:
        drawn = super()._get_samples(batch_inds, env)
        states, reached = self._plain(drawn.observations), self._plain(drawn.next_observations)  # (B, S)
        later = batch_inds + (self._steps_left(batch_inds) * torch.rand(len(batch_inds)).numpy()).astype(np.int64)
        chosen = torch.rand(len(batch_inds)).numpy() < self._settings.hindsight
        goals = self._plain(self.next_observations[later, 0])[:, _DIRECTION]  # (B, 3)
        for each in (states, reached):
            each[chosen, _GOAL] = goals[chosen]
            each[:, _DIRECTION_OFFSET] = each[:, _DIRECTION] - each[:, _GOAL]
        rewards = learnt_reward(self._settings, pen_reward(reached))[:, None]  # (B, 1)
        observed = [self.to_torch((each - self._mean) / self._unit) for each in (states, reached)]
        return ReplayBufferSamples(
            observations=observed[0],
            actions=drawn.actions,
            next_observations=observed[1],
            dones=drawn.dones,
            rewards=self.to_torch(rewards),
        )

    def _plain(self, observed: Any) -> np.ndarray:
        """States as the environment gives them, a copy."""
        plain: np.ndarray = np.asarray(observed) * self._unit + self._mean
        return plain

    def _steps_left(self, steps: np.ndarray) -> np.ndarray:
        """Steps of the episode from each step on, itself included."""
        if self._ends_at != (self.pos, self.full):
            size = self.size()
            ends = np.union1d(np.flatnonzero(self.dones[:size, 0]), [size - 1])
            self._ends = np.repeat(ends, np.diff(ends, prepend=-1))  # (N,)
            self._ends_at = (self.pos, self.full)
        left: np.ndarray = self._ends[steps] - steps + 1
        return left


def pen_reward(states: np.ndarray) -> np.ndarray:
    """The dense reward [B] of adroit's pen for having come to the states [B, S]."""
    distance = np.linalg.norm(states[:, _PLACE_OFFSET], axis=-1)
    cosine = (states[:, _DIRECTION] * states[:, _GOAL]).sum(-1)
    bonus = sum(value * ((distance < _NEAR) & (cosine > least)) for least, value in _BONUSES)
    reward: np.ndarray = cosine - distance + bonus - _FINE * (states[:, _PLACE][:, 2] < _DROPPED)
    return reward.astype(np.float32)
