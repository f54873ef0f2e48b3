"""The tasks of a store's episodes, and of their frames where an import brought them along."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from embodied.datasets.store.episode_index import EpisodeInfo
from embodied.datasets.store.episode_store import EpisodeStore

_KEY = "task_index"


class EpisodeTasks:
    """Numbers for tasks in the order in which they appear.

    Attributes:
        texts: the tasks; grows as episodes are asked for.
        per_frame: whether the store says the task of each frame: a key `task_index` whose texts its provenance has,
            and whose most frequent task is the episode's in every episode. (A merged store may fail that.)
    """

    def __init__(self, store: EpisodeStore) -> None:
        self._store = store
        self._names = _names(store.provenance)
        self._numbers: dict[str, int] = {}
        spec = store.keys.get(_KEY)
        numbered = spec is not None and spec.shape == () and np.dtype(spec.dtype).kind in "iu"
        self.per_frame = numbered and self._names is not None and all(map(self._agrees, store.episodes))

    @property
    def texts(self) -> list[str]:
        return list(self._numbers)

    def of(self, info: EpisodeInfo) -> np.ndarray:
        """int64 [T]: the number of each frame's task."""
        if not self.per_frame:
            return np.full(info.length, self._number(info.task), np.int64)
        assert self._names is not None
        found, inverse = np.unique(self._frames(info), return_inverse=True)
        order = np.argsort([np.argmax(inverse == number) for number in range(len(found))])  # by first appearance
        numbers = np.empty(len(found), np.int64)
        for position in order.tolist():
            numbers[position] = self._number(self._names[int(found[position])])
        return numbers[inverse]

    def _number(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def _frames(self, info: EpisodeInfo) -> np.ndarray:
        return self._store.read(_KEY, info.start, info.start + info.length)

    def _agrees(self, info: EpisodeInfo) -> bool:
        found, counts = np.unique(self._frames(info), return_counts=True)
        assert self._names is not None
        if not all(int(index) in self._names for index in found):
            return False
        commonest = found[counts == counts.max()]
        return info.task in {self._names[int(index)] for index in commonest}


def _names(provenance: Mapping[str, Any]) -> dict[int, str] | None:
    """The texts of a LeRobotDataset's tasks by index, as its import noted them."""
    for record in (provenance, provenance.get("source")):
        tasks = record.get("tasks") if isinstance(record, Mapping) else None
        if isinstance(tasks, Mapping) and all(str(index).isdecimal() for index in tasks):
            return {int(index): str(text) for index, text in tasks.items()}
    return None
