"""Windows of history over arrays that hold several episodes one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def history_indices(lengths: Sequence[int], history: int) -> np.ndarray:
    """For every frame the indices of the last `history` frames of its episode, oldest first.

    Args:
        lengths: frames per episode, in the order in which they lie in the arrays.
        history: T, at least 1.

    Returns:
        int64 [sum(lengths), T]; at the start of an episode its first frame is repeated, so no window reaches into
        the episode before. The last column is the frame itself.
    """
    starts = np.repeat(np.cumsum([0, *lengths[:-1]]), lengths)  # (F,)
    frames = np.arange(sum(lengths))
    offsets = np.arange(history - 1, -1, -1)
    return np.maximum(frames[:, None] - offsets[None, :], starts[:, None])
