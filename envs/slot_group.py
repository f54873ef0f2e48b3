"""Some slots of a vector environment, stepped one after the other by the process that they are in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, MultiBinary
from gymnasium.spaces import Dict as DictSpace
from gymnasium.vector import AutoresetMode

Infos = dict[int, dict[str, Any]]  # by slot; empty ones are left out
Rows = Mapping[str, Any]  # what `row_space` says, as arrays [N, ...] of all slots that all processes share


def row_space(observation: gymnasium.Space[Any], action: gymnasium.Space[Any]) -> DictSpace:
    """What a step of one slot reads and writes; `look`: see `TaskEnv.looking`; `over`: terminated, truncated."""
    reward = Box(-np.inf, np.inf, (), np.float64)
    return DictSpace(
        {
            "observation": observation,
            "action": action,
            "look": MultiBinary(1),
            "reward": reward,
            "over": MultiBinary(2),
        }
    )


class SlotGroup:
    """The environments of some slots, with Gymnasium's autoresets.

    Args:
        slots: their numbers in the vector environment.
        autoreset: of Gymnasium; with `DISABLED` an environment is stepped on after its end, and has to bear it.
    """

    def __init__(self, slots: Sequence[int], autoreset: AutoresetMode) -> None:
        self.slots = slots
        self.at = slots[0]  # the slot that was last at work, to be named when something goes wrong
        self.envs: list[gymnasium.Env[Any, Any]] = []
        self._autoreset = autoreset
        self._over: set[int] = set()  # slots that the next step resets
        self._rows: Rows = {}
        self._result: Any = None

    def make(self, make: Callable[[], gymnasium.Env[Any, Any]]) -> None:
        """Make the environments, once."""
        for slot in self.slots:
            self.at = slot
            self.envs.append(make())

    def share(self, space: gymnasium.Space[Any], rows: Rows) -> None:
        """What later steps read actions from and write the rest to; `space` is that of a row."""
        if any(row_space(env.observation_space, env.action_space) != space for env in self.envs):
            raise RuntimeError("the environments of a vector environment differ in their spaces")
        self._rows = rows

    def ask(self, command: str, *arguments: Any) -> None:
        """Call a method below; `answer` gives what it returned."""
        self._result = getattr(self, command)(*arguments)

    def answer(self) -> Any:
        """Of what was asked last."""
        return self._result

    def reset(self, seeds: Mapping[int, int | None], options: dict[str, Any] | None) -> Infos:
        """Reset the slots that are in `seeds`."""
        infos = {}
        for slot, env in self._each():
            if slot in seeds:
                observation, infos[slot] = env.reset(seed=seeds[slot], options=options)
                self._over.discard(slot)
                _write(self._rows["observation"], slot, observation)
        return {slot: info for slot, info in infos.items() if info}

    def step(self) -> Infos:
        """Step every slot by its row's action."""
        rows, infos = self._rows, {}
        for slot, env in self._each():
            if hasattr(env.unwrapped, "looking"):
                env.unwrapped.looking = bool(rows["look"][slot, 0])
            action = rows["action"][slot].copy()  # the row is overwritten, and an environment may keep its action
            observation, reward, terminated, truncated, infos[slot] = self._advance(slot, env, action)
            _write(rows["observation"], slot, observation)
            rows["reward"][slot] = reward
            rows["over"][slot] = terminated, truncated
        return {slot: info for slot, info in infos.items() if info}

    def _advance(
        self, slot: int, env: gymnasium.Env[Any, Any], action: Any
    ) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        if self._autoreset is AutoresetMode.NEXT_STEP and slot in self._over:
            self._over.remove(slot)
            observation, info = env.reset()
            return observation, 0.0, False, False, info
        observation, reward, terminated, truncated, info = env.step(action)
        if (terminated or truncated) and self._autoreset is AutoresetMode.NEXT_STEP:
            self._over.add(slot)
        if (terminated or truncated) and self._autoreset is AutoresetMode.SAME_STEP:
            last = {"final_obs": observation, "final_info": info}
            observation, info = env.reset()
            info = {**last, **info}
        return observation, float(reward), terminated, truncated, info

    def call(self, name: str, arguments: Sequence[Any], named: Mapping[str, Any]) -> dict[int, Any]:
        """What the environments' method of that name returns, or the attributes, by slot."""
        results = {}
        for slot, env in self._each():
            value = env.get_wrapper_attr(name)
            results[slot] = value(*arguments, **named) if callable(value) else value
        return results

    def set_attr(self, name: str, values: Sequence[Any]) -> None:
        """Set an attribute of every environment; `values` are those of all slots."""
        for slot, env in self._each():
            env.set_wrapper_attr(name, values[slot])

    def close(self) -> None:
        """Close the environments."""
        while self.envs:
            self.envs.pop().close()

    def _each(self) -> Iterator[tuple[int, gymnasium.Env[Any, Any]]]:
        for slot, env in zip(self.slots, self.envs, strict=True):
            self.at = slot
            yield slot, env


def _write(rows: Any, slot: int, value: Any) -> None:
    """The one copy of an observation: into the memory that all processes share."""
    if isinstance(rows, Mapping):
        for name, row in rows.items():
            _write(row, slot, value[name])
    else:
        rows[slot] = value
