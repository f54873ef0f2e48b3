"""Behaviour learnt by reinforcement: a small network that reads the privileged state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ENVIRONMENT_STATE
from embodied.envs.simulation import TaskSpec

ASSETS = Path(__file__).parent / "assets"
TRAIN_COMMAND = "python benchmarks/train_experts.py train {suite} {task} FOLDER"


class RLExpert:
    """The actor of `benchmarks/train_experts.py` for a task, without its exploration: its most likely action.

    Args:
        spec: the task's.
        assets: folder with `<suite>/<task>.safetensors`.

    Raises:
        UsageError: there is no actor for the task, or it was trained on another state or action.
        UserError: the actor's file is damaged.
    """

    def __init__(self, spec: TaskSpec, *, assets: Path = ASSETS) -> None:
        path = assets / spec.suite / f"{spec.task}.safetensors"
        train = TRAIN_COMMAND.format(suite=spec.suite, task=spec.task)
        if not path.is_file():
            known = ", ".join(tasks_with_actor(spec.suite, assets=assets)) or "no task"
            raise UsageError(
                f"no rl expert for {spec.task} of {spec.suite}: there is one for {known}. Train one: {train}"
            )
        self._layers, self.metadata = load_actor(path)
        size = spec.environment_state if isinstance(spec.environment_state, int) else len(spec.environment_state)
        expected, found = (size, len(spec.action)), (self._layers[0][0].shape[1], len(self._layers[-1][1]))
        if expected != found:
            raise UsageError(
                f"the rl expert for {spec.task} of {spec.suite} is for {found[0]} numbers of state and {found[1]} of "
                f"action, but the task has {expected[0]} and {expected[1]}: train it again: {train}"
            )
        self._middle = (spec.action_high + spec.action_low) / 2
        self._reach = (spec.action_high - spec.action_low) / 2

    def reset(self, seed: int) -> None:
        """Nothing to forget: it acts by the present state alone."""

    def act(self, observation: Mapping[str, np.ndarray]) -> np.ndarray:
        hidden = observation[ENVIRONMENT_STATE]  # (S,)
        for weight, bias in self._layers[:-1]:
            hidden = np.maximum(weight @ hidden + bias, 0)  # (D,)
        weight, bias = self._layers[-1]
        wanted = self._middle + self._reach * np.tanh(weight @ hidden + bias)  # (A,)
        return wanted.astype(np.float32)


def tasks_with_actor(suite: str, *, assets: Path = ASSETS) -> list[str]:
    """Sorted names of the suite's tasks that have a trained actor."""
    return sorted(path.stem for path in (assets / suite).glob("*.safetensors"))


def load_actor(path: Path) -> tuple[list[tuple[np.ndarray, np.ndarray]], dict[str, Any]]:
    """Weights [out, in] and biases [out] of each layer, float32, and how the actor was trained.

    Raises:
        UserError: the file is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as handle:
            count = len(handle.keys()) // 2
            layers = [
                tuple(handle.get_tensor(f"{layer}.{part}").astype(np.float32) for part in ("weight", "bias"))
                for layer in range(count)
            ]
            metadata = json.loads((handle.metadata() or {})["metadata"])
    except (SafetensorError, KeyError) as error:
        raise UserError(f"{path} is damaged or no actor ({error}): restore it from a copy, or train again") from error
    return [(weight, bias) for weight, bias in layers], metadata
