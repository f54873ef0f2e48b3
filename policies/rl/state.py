"""An agent's whole state as one checkpoint without pickles, so that a killed training goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from embodied.core.checkpoint import load_checkpoint, save_checkpoint

if TYPE_CHECKING:  # what only names an agent must do without stable-baselines3
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.buffers import ReplayBuffer

_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")
_ARRAYS = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_state(path: Path, algorithm: BaseAlgorithm) -> None:
    """Networks, optimisers, counters and the filled part of a replay buffer."""
    tensors: dict[str, Tensor] = {}
    groups: dict[str, Any] = {}
    for name, state in algorithm.get_parameters().items():
        if "param_groups" in state:  # an optimiser
            groups[name] = state["param_groups"]
            for index, values in state["state"].items():
                for part, value in values.items():
                    tensors[f"optimizer/{name}/{index}/{part}"] = torch.as_tensor(value)
        else:
            tensors.update({f"network/{name}/{key}": value for key, value in state.items()})
    for name in algorithm._get_torch_save_params()[1]:
        tensors[f"variable/{name}"] = getattr(algorithm, name)
    buffer = getattr(algorithm, "replay_buffer", None)
    extent = None
    if buffer is not None:
        extent = {"pos": int(buffer.pos), "full": bool(buffer.full)}
        filled = buffer.size()
        for name, array in _buffer_arrays(buffer).items():
            tensors[f"replay/{name}"] = torch.from_numpy(array[:filled])
    counters = {name: int(getattr(algorithm, name)) for name in _COUNTERS if hasattr(algorithm, name)}
    save_checkpoint(path, tensors, {"counters": counters, "groups": groups, "replay": extent})


def load_state(path: Path, algorithm: BaseAlgorithm) -> None:
    """Bring an algorithm that was just built to a saved state."""
    tensors, metadata = load_checkpoint(path)
    parameters: dict[str, Any] = {name: {} for name in algorithm.get_parameters()}
    for name, group in metadata["groups"].items():
        parameters[name] = {"param_groups": group, "state": {}}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "network":
            name, _, part = rest.partition("/")
            parameters[name][part] = tensor
        elif kind == "optimizer":
            name, index, part = rest.split("/")
            parameters[name]["state"].setdefault(int(index), {})[part] = tensor
    algorithm.set_parameters(parameters, exact_match=True, device=algorithm.device)
    for name in algorithm._get_torch_save_params()[1]:
        variable = getattr(algorithm, name)
        variable.data.copy_(tensors[f"variable/{name}"])
    for name, value in metadata["counters"].items():
        setattr(algorithm, name, value)
    if metadata["replay"] is not None:
        buffer: Any = algorithm.replay_buffer
        buffer.pos, buffer.full = metadata["replay"]["pos"], metadata["replay"]["full"]
        for name, array in _buffer_arrays(buffer).items():
            saved = tensors[f"replay/{name}"].numpy()
            array[: len(saved)] = saved


def end_running_episodes(algorithm: BaseAlgorithm) -> None:
    """Mark what was collected last as cut off, since the environments are about to be restarted.

    Without it a return over several steps would add up rewards of two episodes.
    """
    algorithm._last_obs = None  # the next `learn` resets the environments
    algorithm.ep_info_buffer = None  # whose means must not depend on what was seen before a restart
    buffer = getattr(algorithm, "replay_buffer", None)
    if buffer is not None and buffer.size():
        last = buffer.pos - 1
        cut = buffer.dones[last] == 0
        buffer.dones[last][cut] = 1
        buffer.timeouts[last][cut] = 1


def _buffer_arrays(buffer: ReplayBuffer) -> dict[str, np.ndarray]:
    found: dict[str, np.ndarray] = {}
    for name in _ARRAYS:
        value = getattr(buffer, name)
        if isinstance(value, dict):
            found.update({f"{name}.{key}": array for key, array in value.items()})
        else:
            found[name] = value
    return found
