"""Several Meta-World tasks in one environment: one drawn for every episode, or a chain of them in a row.

Every Meta-World task is a scene of its own, so a chain cannot be CALVIN's, where one table holds all that five
instructions are about. What is kept of CALVIN's scoring: five instructions in a row, the next one only when the one
before has succeeded, the same limit of steps for each, and success of 1, 2, ... 5 in a row with their mean as average
length. What is not: when a task is done its scene is replaced by the next one's, with objects placed anew. What is
carried over is the arm: it starts where it was, with the gripper open, unless something of the new scene is there, in
which case it starts from the task's own position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.envs.simulation import Progress, TaskSpec

if TYPE_CHECKING:
    from embodied.core.protocols import Expert
    from embodied.envs.suites.metaworld import MetaWorldSimulation

_LONGEST = 20  # tasks of a chain


class TaskSet:
    """One of several tasks in every episode, or a chain of them; implements `Simulation`.

    Without a chain the task is that of the seed modulo the number of tasks: n seeds in a row have each task once. A
    chain's tasks are shuffled by the seed; no task comes again before all have been.

    The score of a chain is the share of its tasks that were done, in a row from the first; it has succeeded when all
    were.

    Args:
        name: of the set.
        tasks: their names.
        make: a task's simulation, made when it is needed and kept.
        chain: tasks of an episode; 1: no chain.
    """

    def __init__(
        self, name: str, tasks: Sequence[str], make: Callable[[str], MetaWorldSimulation], *, chain: int = 1
    ) -> None:
        if isinstance(chain, bool) or not isinstance(chain, int) or not 1 <= chain <= _LONGEST:
            raise UsageError(f"env.chain must be a whole number from 1 to {_LONGEST}, got {chain!r}")
        self.tasks, self.chain, self._name = tuple(tasks), chain, name
        self._make = make
        self._made: dict[str, MetaWorldSimulation] = {}
        self._order: tuple[str, ...] = self.tasks[:1]
        self._seeds: tuple[int, ...] = (0,)
        self._done = 0
        self.spec = self._spec_of(self.current)

    @property
    def current(self) -> MetaWorldSimulation:
        """The simulation of what is to be done now."""
        task = self._order[self._done]
        if task not in self._made:
            self._made[task] = self._make(task)
        return self._made[task]

    @property
    def model(self) -> Any:
        return self.current.model

    @property
    def data(self) -> Any:
        return self.current.data

    def reset(self, seed: int) -> None:
        self._order, self._seeds = plan_of(self.tasks, self.chain, seed)
        self._begin(0, hand=None)

    def step(self, action: np.ndarray) -> Progress:
        progress = self.current.step(action)
        if self.chain == 1:
            return progress
        done = self._done + int(progress.success)
        if progress.success and done < self.chain:
            self._begin(done, hand=self.current.hand)
        return Progress(progress.reward, done == self.chain, score=done / self.chain)

    def observe(self) -> tuple[np.ndarray, np.ndarray]:
        return self.current.observe()

    def _begin(self, number: int, *, hand: np.ndarray | None) -> None:
        self._done = number
        self.current.reset(self._seeds[number], hand=hand)
        self.spec = self._spec_of(self.current)  # a new object: something else is to be done

    def _spec_of(self, simulation: MetaWorldSimulation) -> TaskSpec:
        return replace(simulation.spec)


def plan_of(tasks: Sequence[str], chain: int, seed: int) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """Tasks of the episode of that seed, and the seed of each one's placement and words."""
    from embodied.core.seeding import numpy_generator  # here, for it loads torch

    if chain == 1:
        return (tasks[seed % len(tasks)],), (seed,)
    random = numpy_generator(seed, "chain")
    order: list[str] = []
    while len(order) < chain:
        order += [tasks[number] for number in random.permutation(len(tasks))]
    return tuple(order[:chain]), tuple(int(each) for each in random.integers(2**31, size=chain))


class TaskSetExpert:
    """The expert of whatever task is to be done now.

    Args:
        simulation: which says what that is.
        make: an expert by the name of its task.
    """

    def __init__(self, simulation: TaskSet, make: Callable[[str], Expert]) -> None:
        self._simulation, self._make = simulation, make
        self._made: dict[str, Expert] = {}
        self._spec: TaskSpec | None = None
        self._seed = 0

    def reset(self, seed: int) -> None:
        self._seed, self._spec = seed, None

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        spec = self._simulation.spec
        if spec.task not in self._made:
            self._made[spec.task] = self._make(spec.task)
        expert = self._made[spec.task]
        if spec is not self._spec:
            expert.reset(self._seed)
            self._spec = spec
        return expert.act(observation)
