"""What an rl expert is trained on: settings, the task without frames, its state and reward in suitable units.

Used by train_experts.py.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import gymnasium
import numpy as np

from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.core.seeding import derive_seed
from embodied.envs.experts.behaviours import RandomExpert
from embodied.envs.task_env import TaskEnv

_UNIT_EPISODES = 40  # of random motion, from which the units of the state are found
_SMALLEST_UNIT = 0.05  # for numbers that random motion hardly changes, such as the height of an object


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What defines a training; two with the same settings give the same actor on the same machine.

    Args:
        steps: of the environment, at least; one simulates `action_repeat` actions.
        round_steps: between selection episodes and checkpoints, at least.
        width: of the two hidden layers of actor and critics.
        gradient_ratio: gradient steps per step of the environment, which costs much less without frames.
        learning_starts: steps with random actions before the first gradient step.
        memory: steps that are remembered.
        units: 1 measures each number of the state by its mean and deviation under random motion; 0 takes it as it is.
        symlog: 1 learns from sign(r) log(1 + |r|) of a step's reward r: rewards with large bonuses; 0 from r itself.
        hindsight: share of what is learnt from that has another goal, see `expert_goals`.
        reward_scale, reward_offset: what it learns from is scaled and then raised by these. Where an episode can end in
            failure, living on must be worth more.
    """

    suite: str
    task: str
    protocol: str | None = None
    horizon: int | None = None
    action_repeat: int = 2
    steps: int = 100_000
    round_steps: int = 10_000
    seed: int = 0
    width: int = 128
    batch: int = 128
    gradient_ratio: float = 0.5
    learning_rate: float = 1e-3
    discount: float = 0.99
    learning_starts: int = 5_000
    memory: int = 500_000
    units: int = 0
    symlog: int = 0
    hindsight: float = 0.0
    reward_scale: float = 1.0
    reward_offset: float = 0.0


class StateEnv(gymnasium.Wrapper[np.ndarray, np.ndarray, Any, Any]):
    """A task with the privileged state as the whole observation; the placement follows from the episode's number.

    `mean` and `unit` [S] are the units in which the state is observed.
    """

    def __init__(self, settings: Settings) -> None:
        env = make_env(settings)
        # Going on after a success: its rewards must be worth more than those of waiting before it.
        env.spec_of_task = replace(env.spec_of_task, ends_on_success=False)
        super().__init__(env)
        self.observation_space = self.env.observation_space[ENVIRONMENT_STATE]
        self.settings, self.episode = settings, 0
        self.mean, self.unit = np.float32(0), np.float32(1)
        if settings.units:
            states = random_states(env, settings.seed)
            self.mean, self.unit = states.mean(0), np.maximum(states.std(0), _SMALLEST_UNIT)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[np.ndarray, dict[str, Any]]:
        placement = derive_seed(self.settings.seed, "training episode", self.episode) % 2**31
        observation, info = self.env.reset(seed=placement)
        self.episode += 1
        return self._observed(observation), info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        observation, reward, *outcome = self.env.step(action)
        return self._observed(observation), float(learnt_reward(self.settings, reward)), *outcome

    def _observed(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        state: np.ndarray = (observation[ENVIRONMENT_STATE] - self.mean) / self.unit
        return state


def learnt_reward(settings: Settings, reward: Any) -> Any:
    """What is learnt from in place of a reward or an array of them."""
    felt = np.sign(reward) * np.log1p(np.abs(reward)) if settings.symlog else reward
    return settings.reward_scale * felt + settings.reward_offset


def make_env(settings: Settings, *, every_action: bool = False) -> TaskEnv:
    """The task without frames; `every_action`: as long an episode with a choice at every simulated action."""
    repeat = settings.action_repeat
    return TaskEnv(
        suite=settings.suite,
        task=settings.task,
        protocol=settings.protocol,
        horizon=settings.horizon if settings.horizon is None or not every_action else settings.horizon * repeat,
        action_repeat=1 if every_action else repeat,
        images=False,
    )


def random_states(env: TaskEnv, seed: int) -> np.ndarray:
    """The privileged states of some episodes of smooth random motion, float32 [N, S]."""
    states, expert = [], RandomExpert(env.spec_of_task, spread=0.5)
    for episode in range(_UNIT_EPISODES):
        placement = derive_seed(seed, "units", episode) % 2**31
        observation, _ = env.reset(seed=placement)
        expert.reset(placement)
        over = False
        while not over:
            states.append(observation[ENVIRONMENT_STATE])
            observation, _, terminated, truncated, _ = env.step(expert.act(observation))
            over = terminated or truncated
    return np.stack(states)
