"""Demonstrations as training samples: a window of history and the chunk of actions that begins at its end.

Legend: B batch, F frames, T moments of history, H chunk, P proprioception, A action, K cameras, N episodes,
E width of an instruction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, FEATURES, INPUTS, INSTRUCTION, PAD_MASK, STATE
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.picked_rows import PickedRows
from embodied.datasets.loading.window_index import window_rows


class Demonstrations:
    """Samples for behaviour cloning, gathered from arrays over all frames F of several episodes.

    A window never leaves its episode: before the start the first frame is repeated, after the end the last action.

    Args:
        inputs: features float16/32 [F, ...] (given to the policy as `features`, float32) or raw frames uint8
            [F, H, W, 3] (given as `inputs`): an array, or the rows of a cache, which may be bfloat16. Of several
            cameras K such, their features are put side by side.
        state: proprioception float32 [F, P].
        action: float32 [F, A].
        lengths: frames per episode; they add up to F.
        instructions: embeddings float32 [N, E], one per episode; None: samples have none.
        history: T, frames per sample.
        chunk: H, actions per sample, the first is the present one.
        forward: the window begins with the frame instead of ending with it, for heads that read moment by moment and
            answer each; H must be T.

    Raises:
        UsageError: lengths do not fit, or there is nothing to learn from.
        UserError: a state or an action is not a finite number.
    """

    def __init__(
        self,
        inputs: np.ndarray | Rows | Sequence[np.ndarray | Rows | PickedRows],
        *,
        state: np.ndarray,
        action: np.ndarray,
        lengths: Sequence[int],
        history: int,
        chunk: int = 1,
        forward: bool = False,
        instructions: Tensor | None = None,
    ) -> None:
        self._inputs = [inputs] if isinstance(inputs, np.ndarray | Rows) else list(inputs)
        frames = sum(lengths)
        if not frames:
            raise UsageError("demonstrations: there are no episodes to learn from; collect some, or raise demos")
        arrays = [*(("inputs", array) for array in self._inputs), ("state", state), ("action", action)]
        for name, found in arrays:
            if len(found) != frames:
                raise UsageError(f"{name}: expected {frames} frames as in lengths, got {len(found)}")
        if history < 1 or chunk < 1 or (forward and chunk != history):
            raise UsageError(f"history and chunk must be at least 1 (and equal, forward), got {history} and {chunk}")
        if instructions is not None and len(instructions) != len(lengths):
            raise UsageError(f"instructions: expected one for each of {len(lengths)} episodes, got {len(instructions)}")
        for name, values in ((STATE, state), (ACTION, action)):
            require_finite(name, values, lengths)
        self._name = INPUTS if self._inputs[0].dtype == np.uint8 else FEATURES
        self._state = torch.from_numpy(np.ascontiguousarray(state))
        self._action = torch.from_numpy(np.ascontiguousarray(action))
        self._stops = np.repeat(np.cumsum(lengths), lengths)  # (F), the row after the last of the frame's episode
        self._starts = self._stops - np.repeat(lengths, lengths)
        self._instructions = instructions
        self._episodes = np.repeat(np.arange(len(lengths)), lengths)  # (F)
        self._moments = np.arange(history) if forward else np.arange(1 - history, 1)
        self._ahead = np.arange(chunk)

    def __len__(self) -> int:
        return len(self._starts)

    def batch(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Samples by frame, int64 [B].

        Returns:
            `features` float32 or `inputs` uint8 [B, T, ...], `observation.state` [B, T, P], `action` [B, H, A], and
            `pad_mask` bool [B, H], True = an action of the episode, False = its last one repeated; with instructions
            `instruction` float32 [B, E].
        """
        moments, ahead, padded = self._rows(indices)
        windows = [torch.from_numpy(inputs[moments]) for inputs in self._inputs]  # K times (B, T, ...)
        if self._name == FEATURES:
            windows = [window.float() for window in windows]
        told = {}
        if self._instructions is not None:
            told[INSTRUCTION] = self._instructions[torch.from_numpy(self._episodes[indices])]
        return {
            self._name: windows[0] if len(windows) == 1 else torch.cat(windows, dim=-1),
            **self._targets(moments, ahead, padded),
            **told,
        }

    def targets(self, indices: np.ndarray) -> dict[str, Tensor]:
        """Of `batch` what takes no inputs to be read: states, actions, and which of these are real."""
        return self._targets(*self._rows(indices))

    def _rows(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows of the moments [B, T] and of the actions [B, H] of samples, and which of these are padding [B, H]."""
        starts, stops = self._starts[indices], self._stops[indices]
        moments, _ = window_rows(indices, starts, stops, self._moments)
        return moments, *window_rows(indices, starts, stops, self._ahead)

    def _targets(self, moments: np.ndarray, ahead: np.ndarray, padded: np.ndarray) -> dict[str, Tensor]:
        return {
            STATE: self._state[torch.from_numpy(moments)],
            ACTION: self._action[torch.from_numpy(ahead)],
            PAD_MASK: torch.from_numpy(~padded),
        }

    @property
    def actions(self) -> Tensor:
        """Of all frames, float32 [F, A]."""
        return self._action

    @property
    def states(self) -> Tensor:
        """Of all frames, float32 [F, P]."""
        return self._state


def require_finite(name: str, values: np.ndarray, lengths: Sequence[int], numbers: Sequence[int] | None = None) -> None:
    """Refuse values [F, ...] of episodes that are no finite numbers.

    Args:
        name: of their key.
        lengths: frames per episode.
        numbers: of the episodes in their store; None: they are counted from 0.

    Raises:
        UserError: names the first episode and step.
    """
    finite = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    if finite.all():
        return
    frame = int(np.argmin(finite))
    stops = np.cumsum(lengths)
    episode = int(np.searchsorted(stops, frame, side="right"))
    step = frame - int(stops[episode] - lengths[episode])
    count = len(np.unique(np.searchsorted(stops, np.flatnonzero(~finite), side="right")))
    more = f" (and in {count - 1} more)" if count > 1 else ""
    named = episode if numbers is None else numbers[episode]
    raise UserError(
        f"demonstrations: {name} is not a finite number in episode {named}, step {step}{more}: leave the episode out "
        "(embodied data --help), or record it again"
    )
