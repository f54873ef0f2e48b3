"""Demonstrations as training samples: a window of history and the action at its end."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, FEATURES, INPUTS, STATE
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.window_index import history_indices


class Demonstrations:
    """Samples for behaviour cloning, gathered from arrays over all frames F of several episodes.

    Args:
        inputs: features float16/32 [F, ...] (given to the policy as `features`, float32) or raw frames uint8
            [F, H, W, 3] (given as `inputs`): an array, or the rows of a cache, which may be bfloat16.
        state: proprioception float32 [F, P].
        action: float32 [F, A].
        lengths: frames per episode; they add up to F.
        history: T, frames per sample.
    """

    def __init__(
        self,
        inputs: np.ndarray | Rows,
        *,
        state: np.ndarray,
        action: np.ndarray,
        lengths: Sequence[int],
        history: int,
    ) -> None:
        frames = sum(lengths)
        for name, found in (("inputs", len(inputs)), ("state", len(state)), ("action", len(action))):
            if found != frames:
                raise UsageError(f"{name}: expected {frames} frames as in lengths, got {found}")
        self._inputs = inputs
        self._name = INPUTS if inputs.dtype == np.uint8 else FEATURES
        self._state = torch.from_numpy(np.ascontiguousarray(state))
        self._action = torch.from_numpy(np.ascontiguousarray(action))
        self._windows = history_indices(lengths, history)

    def __len__(self) -> int:
        return len(self._windows)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Samples [B, ...]: `features` float32 or `inputs` uint8 [B, T, ...], `observation.state`, `action`."""
        window = torch.from_numpy(self._inputs[self._windows[indices]])  # (B, T, ...)
        if self._name == FEATURES:
            window = window.float()
        rows = torch.from_numpy(indices)
        return {self._name: window, STATE: self._state[rows], ACTION: self._action[rows]}

    def action_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and (biased) standard deviation of the actions, float32 [A]."""
        return self._action.mean(dim=0), self._action.std(dim=0, correction=0)
