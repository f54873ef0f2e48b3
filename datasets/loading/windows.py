"""Windows of frames by episode and time, read from what is materialised.

B windows per batch, T offsets per key, E episodes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from embodied.core.errors import UsageError
from embodied.core.protocols import PAD_SUFFIX
from embodied.datasets.loading.episode_rows import episode_numbers
from embodied.datasets.loading.materialized import Materialized
from embodied.datasets.loading.window_index import WindowIndex, checked_windows, window_rows

_DERIVED = ("episodes", "_places", "_task_indices", "_index")  # not sent to workers
EPISODE_INDEX, FRAME_INDEX, TASK_INDEX = "episode_index", "frame_index", "task_index"


class WindowDataset(Dataset[dict[str, np.ndarray]]):
    """A window around every frame of every episode; a batch is one gather per key, without a loop over samples.

    A batch holds, for every key of `windows`, an array [B, T, ...] and `<key>_is_pad` bool [B, T]: 1 where the offset
    reaches beyond the episode, whose first or last frame is repeated there, as LeRobot does. With it come
    `episode_index` (the number in the store), `frame_index` (the frame's place in its episode) and `task_index` (into
    `tasks`), int64 [B], unless `windows` names a key of the store so.

    Args:
        materialized: holds the keys.
        windows: per key the offsets in frames, like LeRobot's `delta_timestamps` times fps: `[-1, 0]` is the frame and
            the one before, `range(16)` the frame and the 15 after it.
        episodes: numbers in the store, all that are materialised by default.
        whole: leave out frames whose windows would be padded.

    Raises:
        UsageError: a key or episode is not materialised, offsets are no whole numbers, or no window is left.
    """

    def __init__(
        self,
        materialized: Materialized,
        *,
        windows: Mapping[str, Sequence[int]],
        episodes: Sequence[int] | None = None,
        whole: bool = False,
    ) -> None:
        self.materialized = materialized
        self.windows = checked_windows(windows, list(materialized.rows))
        self._reach = {key: (int(offsets.min()), int(offsets.max())) for key, offsets in self.windows.items()}
        self.whole = whole
        there = materialized.episodes
        chosen = there if episodes is None else episode_numbers(episodes)
        missing = np.setdiff1d(chosen, there)
        if len(missing) or len(np.unique(chosen)) < len(chosen):
            raise UsageError(
                f"episodes: expected different ones of the {len(there)} that are materialised, "
                f"got {'one twice' if not len(missing) else missing[:5].tolist()}"
            )
        self._chosen = np.packbits(np.isin(there, chosen))  # a bit per episode: small however many there are
        if not len(self):
            raise UsageError(f"no window fits into any of {len(chosen)} episodes: give shorter windows, or whole=False")

    @property
    def tasks(self) -> list[str]:
        """The instructions, by `task_index`."""
        return self.materialized.tasks

    @cached_property
    def episodes(self) -> np.ndarray:
        """int64: the numbers of the episodes in the store, ascending."""
        return self.materialized.episodes[self._places]

    def __len__(self) -> int:
        """The number of windows."""
        return len(self._index)

    def __getitem__(self, index: int | np.integer | np.ndarray) -> dict[str, np.ndarray]:
        """One window without the batch axis, or the batch of an array of indices."""
        return self.batch(index) if isinstance(index, np.ndarray) and index.ndim else self._item(int(index))

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, np.ndarray]]:
        """Windows for torch's own collating; read as one batch."""
        batch = self.batch(np.asarray(indices, np.int64))
        return [{key: array[row] for key, array in batch.items()} for row in range(len(indices))]

    def batch(self, indices: np.ndarray, *, out: Mapping[str, np.ndarray] | None = None) -> dict[str, np.ndarray]:
        """The windows at indices int64 [B]; see the class.

        Args:
            indices: which.
            out: an earlier batch that is done with: arrays of the right shape are written over and returned. Fresh
                memory is half of the cost of a batch of large images.

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        index = self._index
        owner, frames = index.locate(np.asarray(indices, np.int64))
        starts, stops = index.starts[owner], index.stops[owner]
        batch = {
            EPISODE_INDEX: self.episodes[owner],
            FRAME_INDEX: frames - starts,
            TASK_INDEX: self._task_indices[owner],
        }
        for key, offsets in self.windows.items():
            rows, batch[key + PAD_SUFFIX] = window_rows(frames, starts, stops, offsets)
            batch[key] = self.materialized.rows[key].gather(rows, None if out is None else out.get(key))
        return batch

    def _item(self, number: int) -> dict[str, np.ndarray]:
        """One window, as of `batch`; its own code because a batch of one costs four times as much."""
        index = self._index
        if not 0 <= number < len(index):
            raise IndexError(f"indices must be in 0 to {len(index) - 1}, got {number}")
        place = int(index.ends.searchsorted(number, side="right"))
        start, last = int(index.starts[place]), int(index.stops[place]) - 1
        frame = int(index.first[place]) + number - int(index.ends[place] - index.counts[place])
        item = {
            EPISODE_INDEX: self.episodes[place],
            FRAME_INDEX: np.int64(frame - start),
            TASK_INDEX: self._task_indices[place],
        }
        for key, offsets in self.windows.items():
            wanted = rows = offsets + frame
            first, final = self._reach[key]
            if frame + first < start or frame + final > last:  # else nothing to cut, as is most common
                rows = np.minimum(np.maximum(wanted, start), last)
            item[key + PAD_SUFFIX] = rows != wanted
            item[key] = self.materialized.rows[key].gather(rows)
        return item

    def index_of(self, episode: int, frame: int) -> int:
        """The index of the window around a frame, by the episode's number in the store and the place in it.

        Raises:
            UsageError: there is no such window.
        """
        places = np.flatnonzero(self.episodes == episode)
        if not len(places):
            raise UsageError(f"episode {episode} is not in this dataset")
        place, index = int(places[0]), self._index
        number = int(index.starts[place]) + frame - int(index.first[place])
        if not 0 <= number < index.counts[place]:
            raise UsageError(f"episode {episode} has no window around frame {frame}")
        return int(index.ends[place] - index.counts[place]) + number

    @cached_property
    def _places(self) -> np.ndarray:
        """int64: which of the materialised episodes are chosen."""
        return np.flatnonzero(np.unpackbits(self._chosen, count=len(self.materialized.episodes)))

    @cached_property
    def _task_indices(self) -> np.ndarray:
        return self.materialized.task_indices[self._places]

    @cached_property
    def _index(self) -> WindowIndex:
        data, places = self.materialized, self._places
        return WindowIndex.of(data.starts[places], data.lengths[places], self.windows, whole=self.whole)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in _DERIVED}
