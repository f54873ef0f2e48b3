"""The whole state of an SAC training between two episodes, without pickles: see train_experts.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC

from embodied.core.files import atomic_path

_COUNTERS = ("num_timesteps", "_n_updates", "_episode_num")
_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


def save_training(path: Path, model: SAC, *, extra: dict[str, Any]) -> None:
    """Write networks, optimisers, replay buffer, counters and random states to `path`, atomically."""
    buffer = model.replay_buffer
    size = buffer.size()
    _, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "parameters": model.get_parameters(),
        "log_ent_coef": model.log_ent_coef.detach().clone(),
        "counters": {name: getattr(model, name) for name in _COUNTERS},
        # clones: a view would take its whole, mostly empty, buffer with it
        "buffer": {name: torch.from_numpy(getattr(buffer, name)[:size].copy()) for name in _BUFFER},
        "buffer_place": (buffer.pos, buffer.full),
        "torch_random": torch.get_rng_state(),
        "numpy_random": (torch.from_numpy(keys.astype(np.int64)), position, has_gauss, gauss),
        "action_random": model.action_space.np_random.bit_generator.state,
        "extra": extra,
    }
    with atomic_path(path) as temporary:
        torch.save(state, temporary)


def load_training(path: Path, model: SAC) -> dict[str, Any]:
    """Put a new model into the state that `save_training` wrote; returns its `extra`."""
    state = torch.load(path, weights_only=True)
    model.set_parameters(state["parameters"])
    with torch.no_grad():
        model.log_ent_coef.copy_(state["log_ent_coef"])
    for name, value in state["counters"].items():
        setattr(model, name, value)
    buffer = model.replay_buffer
    for name, values in state["buffer"].items():
        getattr(buffer, name)[: len(values)] = values.numpy()
    buffer.pos, buffer.full = state["buffer_place"]
    torch.set_rng_state(state["torch_random"])
    keys, *rest = state["numpy_random"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    model.action_space.np_random.bit_generator.state = state["action_random"]
    extra: dict[str, Any] = state["extra"]
    return extra
