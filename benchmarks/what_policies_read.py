"""How much a policy's actions depend on its pictures, its state, and its instruction, on episodes of a store.

python benchmarks/what_policies_read.py STORE POLICY...             # POLICY: <run>/checkpoints/step_*.safetensors

Each policy acts along recorded episodes four times: on what was recorded, on pictures that stand still (the episode's
first, at every step), on a state that stands still, and on the instruction of the store's next episode. Printed is the
root mean square of what that changes of its actions, over the standard deviation of the recorded ones, dimension by
dimension, then averaged: 0 is a policy that does not look, 1 one whose actions change as much as demonstrations vary.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from embodied.core.errors import UserError
from embodied.core.protocols import STATE
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.policies.artifact import load_policy

EPISODES, STEPS = 8, 50
PICTURES = "observation.images."
WAYS = ("pictures", "state", "instruction")


def main() -> None:
    """Print a row per policy."""
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    store = EpisodeStore.open(sys.argv[1])
    episodes, instructions = _episodes(store)
    varied = store.statistics("action")["std"]
    moves = varied > 0  # a gripper that never closes says nothing
    table = Table("policy", *(f"{way} changed" for way in WAYS), title=f"{len(instructions)} episodes, {STEPS} steps")
    for path in track(sys.argv[2:], "acting"):
        policy, _ = load_policy(path, device=torch.device("cpu"))
        own = _actions(policy, episodes, instructions)
        others = (
            _actions(policy, _still(episodes, PICTURES), instructions),
            _actions(policy, _still(episodes, STATE), instructions),
            _actions(policy, episodes, [*instructions[1:], instructions[0]]),
        )
        changes = [np.mean(np.sqrt(((other - own) ** 2).mean((0, 1)))[moves] / varied[moves]) for other in others]
        table.add_row(str(Path(path).parent.parent.name), *(f"{change:.2f}" for change in changes))
    Console(width=160).print(table)


def _episodes(store: EpisodeStore) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    """The first steps of the first episodes, [B, T, ...], and what they were told."""
    chosen = [episode for episode in store.episodes if episode.length >= STEPS][:EPISODES]
    if not chosen:
        raise SystemExit(f"no episode of {sys.argv[1]} has {STEPS} steps")
    names = [name for name in store.keys if name.startswith(PICTURES) or name == STATE]
    read = [store.read_episode(episode.index, names) for episode in chosen]
    return {name: np.stack([one[name][:STEPS] for one in read]) for name in names}, [one.task for one in chosen]


def _still(episodes: dict[str, np.ndarray[Any, Any]], start: str) -> dict[str, np.ndarray[Any, Any]]:
    """The same, where what begins with `start` is as at the first step throughout."""
    return {
        name: np.broadcast_to(values[:, :1], values.shape) if name.startswith(start) else values
        for name, values in episodes.items()
    }


def _actions(
    policy: Any, episodes: dict[str, np.ndarray[Any, Any]], instructions: Sequence[str]
) -> np.ndarray[Any, Any]:
    """What the policy does at every step, [B, T, A]."""
    carry, actions = policy.initial(len(instructions), instructions=instructions), []
    for step in range(STEPS):
        observation: dict[str, Tensor] = {
            name: torch.from_numpy(np.ascontiguousarray(values[:, step])) for name, values in episodes.items()
        }
        carry, chunk = policy.act(carry, observation)
        actions.append(chunk[:, 0].numpy())
    return np.stack(actions, axis=1)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
