"""Behaviours that fill episode stores: scripted, random, mixed. All implement `core.protocols.Expert`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np

from embodied.core.errors import unknown_name
from embodied.core.protocols import ENVIRONMENT_STATE, Expert
from embodied.core.seeding import numpy_generator
from embodied.envs.metaworld import list_tasks

EXPERTS = {
    "scripted": "Meta-World's own policy for the task",
    "random": "smooth random motion of hand and gripper",
    "mixed": "scripted, with random stretches",
}
ACTION_DIM = 4


class ScriptedExpert:
    """Meta-World's scripted policy, which reads the privileged state; its action is clipped to [-1, 1]."""

    def __init__(self, task: str) -> None:
        from metaworld.policies import ENV_POLICY_MAP

        if task not in list_tasks():
            raise unknown_name("task", task, list_tasks())
        self._policy_class = ENV_POLICY_MAP[task]
        self._policy = self._policy_class()

    def reset(self, seed: int) -> None:
        self._policy = self._policy_class()  # a few policies remember what they did

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high")
            action = self._policy.get_action(observation[ENVIRONMENT_STATE].astype(np.float64))
        return np.clip(action, -1, 1).astype(np.float32)


class RandomExpert:
    """An Ornstein-Uhlenbeck walk: white noise would leave the hand where it starts.

    Args:
        persistence: share of the last action that is kept each step.
        spread: standard deviation of the walk when it has settled.
    """

    def __init__(self, *, persistence: float = 0.95, spread: float = 1.0) -> None:
        self._persistence, self._spread = persistence, spread
        self._walk = np.zeros(ACTION_DIM)
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        self._random = numpy_generator(seed, "random expert")
        self._walk = self._random.normal(size=ACTION_DIM) * self._spread

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        kick = self._random.normal(size=ACTION_DIM) * self._spread * np.sqrt(1 - self._persistence**2)
        self._walk = self._persistence * self._walk + kick
        return np.clip(self._walk, -1, 1).astype(np.float32)


class MixedExpert:
    """The scripted policy, taken over by the random one for stretches: states that neither visits alone.

    Args:
        task: whose scripted policy.
        takeover: chance per step that a random stretch begins.
        stretch: steps of a random stretch, at least and at most.
    """

    def __init__(self, task: str, *, takeover: float = 0.02, stretch: tuple[int, int] = (10, 40)) -> None:
        self._scripted, self._random_walk = ScriptedExpert(task), RandomExpert()
        self._takeover, self._stretch = takeover, stretch
        self._left = 0
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        self._scripted.reset(seed)
        self._random_walk.reset(seed)
        self._random = numpy_generator(seed, "mixed expert")
        self._left = 0

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._left == 0 and self._random.random() < self._takeover:
            self._left = int(self._random.integers(*self._stretch, endpoint=True))
        if self._left:
            self._left -= 1
            return self._random_walk.act(observation)
        return self._scripted.act(observation)


def make_expert(kind: str, task: str) -> Expert:
    """The behaviour of that name (see `EXPERTS`) for a task."""
    if kind == "scripted":
        return ScriptedExpert(task)
    if kind == "random":
        return RandomExpert()
    if kind == "mixed":
        return MixedExpert(task)
    raise unknown_name("collect.expert", kind, EXPERTS)
