"""Which rows a window of frames takes, in arrays that hold several episodes one after the other.

B windows per batch, T offsets per key, E episodes, F frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from embodied.core.errors import UsageError, unknown_name


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


def window_rows(
    frames: np.ndarray, starts: np.ndarray, stops: np.ndarray, offsets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of windows around frames, which never leave the frame's episode.

    Args:
        frames: int64 [B].
        starts, stops: int64 [B], the first row of each frame's episode and the one after its last.
        offsets: int64 [T], in frames, 0 being the frame itself.

    Returns:
        Rows int64 [B, T], the episode's first or last where the window reaches beyond it, and bool [B, T], 1 = padded.
    """
    wanted = frames[:, None] + offsets[None, :]  # (B, T)
    rows = np.clip(wanted, starts[:, None], stops[:, None] - 1)
    return rows, rows != wanted


def checked_windows(windows: Mapping[str, Sequence[int]], keys: Sequence[str]) -> dict[str, np.ndarray]:
    """The offsets of each key, int64 [T].

    Raises:
        UsageError: a key is not among `keys`, or its offsets are no whole numbers.
    """
    if not windows:
        raise UsageError(f"windows: expected offsets of at least one of {', '.join(keys)}")
    checked = {}
    for key, offsets in windows.items():
        if key not in keys:
            raise unknown_name("key", key, keys)
        array = np.asarray(list(offsets))
        if array.ndim != 1 or not array.size or array.dtype.kind not in "iu":
            raise UsageError(f'windows["{key}"]: expected offsets in frames such as [-1, 0], got {offsets}')
        checked[key] = array.astype(np.int64)
    return checked


def offsets_in_frames(seconds: Sequence[float], *, fps: float, tolerance_s: float = 1e-4) -> list[int]:
    """Offsets in frames of offsets in seconds, as LeRobot's `delta_timestamps` are.

    Raises:
        UsageError: one is further than `tolerance_s` from a whole number of frames.
    """
    frames = [round(value * fps) for value in seconds]
    for value, frame in zip(seconds, frames, strict=True):
        if not abs(value - frame / fps) <= tolerance_s:
            raise UsageError(
                f"offset of {value} s: expected multiples of 1/{fps:g} s, the nearest is {frame / fps:g} s"
            )
    return frames


@dataclass(frozen=True)
class WindowIndex:
    """Where the frames lie around which there is a window: of each episode a stretch, int64 [E] each."""

    starts: np.ndarray  # the episode's first row
    stops: np.ndarray  # the row after its last
    first: np.ndarray  # the first frame with a window
    counts: np.ndarray  # how many frames have one
    ends: np.ndarray  # the number of windows up to and with this episode

    @classmethod
    def of(cls, starts: np.ndarray, lengths: np.ndarray, windows: Mapping[str, np.ndarray], *, whole: bool) -> Self:
        """The windows around all frames; with `whole`, only those that no offset pads."""
        before = max(0, -min(int(offsets.min()) for offsets in windows.values())) if whole else 0
        after = max(0, max(int(offsets.max()) for offsets in windows.values())) if whole else 0
        counts = np.maximum(0, lengths - before - after)
        return cls(starts, starts + lengths, starts + before, counts, np.cumsum(counts))

    def __len__(self) -> int:
        return int(self.ends[-1]) if len(self.ends) else 0

    def locate(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Which episode each window is of, and its frame's row: int64 [B] each."""
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        owner = np.searchsorted(self.ends, indices, side="right")
        return owner, self.first[owner] + indices - (self.ends[owner] - self.counts[owner])
