"""Behaviours of every suite that fill episode stores, and the choice of one by its name."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import Expert
from embodied.core.seeding import numpy_generator
from embodied.envs.registry import load_suite
from embodied.envs.simulation import Simulation, Suite, TaskSpec

RANDOM, MIXED = "random", "mixed"


class RandomExpert:
    """An Ornstein-Uhlenbeck walk in the action space: white noise would leave the hand where it starts.

    Args:
        spec: of the task.
        persistence: share of the last action that is kept each step.
        spread: standard deviation of the walk when it has settled, in half ranges of the action.
    """

    def __init__(self, spec: TaskSpec, *, persistence: float = 0.95, spread: float = 1.0) -> None:
        self._low, self._high = spec.action_low, spec.action_high
        self._persistence, self._spread = persistence, spread
        self._walk = np.zeros(len(self._low))
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        self._random = numpy_generator(seed, "random expert")
        self._walk = self._random.normal(size=len(self._low)) * self._spread

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        kick = self._random.normal(size=len(self._low)) * self._spread * np.sqrt(1 - self._persistence**2)
        self._walk = self._persistence * self._walk + kick
        middle, half = (self._high + self._low) / 2, (self._high - self._low) / 2
        return np.clip(middle + half * self._walk, self._low, self._high).astype(np.float32)


class MixedExpert:
    """An expert, taken over by the random walk for stretches: states that neither visits alone.

    Args:
        expert: which one.
        spec: of the task.
        takeover: chance per step that a random stretch begins.
        stretch: steps of a random stretch, at least and at most.
    """

    def __init__(
        self, expert: Expert, spec: TaskSpec, *, takeover: float = 0.02, stretch: tuple[int, int] = (10, 40)
    ) -> None:
        self._expert, self._random_walk = expert, RandomExpert(spec)
        self._takeover, self._stretch = takeover, stretch
        self._left = 0
        self._random = np.random.default_rng()

    def reset(self, seed: int) -> None:
        self._expert.reset(seed)
        self._random_walk.reset(seed)
        self._random = numpy_generator(seed, "mixed expert")
        self._left = 0

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        if self._left == 0 and self._random.random() < self._takeover:
            self._left = int(self._random.integers(*self._stretch, endpoint=True))
        if self._left:
            self._left -= 1
            return self._random_walk.act(observation)
        return self._expert.act(observation)


def expert_names(suite: Suite) -> dict[str, str]:
    """What `collect.expert` may be for a suite, with a line on each; the suite's own first, its best at the top."""
    mixed = {MIXED: f"{next(iter(suite.experts))}, with random stretches"} if suite.experts else {}
    return {**suite.experts, **mixed, RANDOM: "smooth random motion"}


def check_expert(kind: str, suite: Suite) -> None:
    """Refuse a behaviour that a suite has not.

    Raises:
        UsageError: names what it has.
    """
    names = expert_names(suite)
    if kind == MIXED and kind not in names:
        raise UsageError(f"collect.expert=mixed needs an expert, and {suite.name} has none: choose random")
    if kind not in names:
        raise unknown_name(f"collect.expert of {suite.name}", kind, names)


def make_expert(kind: str, simulation: Simulation) -> Expert:
    """The behaviour of that name for the task of a simulation.

    Raises:
        UsageError: the suite has it not, or not for this task.
    """
    spec = simulation.spec
    suite = load_suite(spec.suite)
    check_expert(kind, suite)
    if kind == RANDOM:
        return RandomExpert(spec)
    if kind == MIXED:
        return MixedExpert(suite.make_expert(next(iter(suite.experts)), spec.task, simulation), spec)
    return suite.make_expert(kind, spec.task, simulation)
