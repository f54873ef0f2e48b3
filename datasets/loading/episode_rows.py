"""Rows of chosen episodes, one after the other, and where they lie in the store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from embodied.core.errors import UsageError
from embodied.datasets.store.episode_store import EpisodeStore


def checked_episodes(store: EpisodeStore, episodes: Sequence[int] | None) -> np.ndarray:
    """The numbers of the chosen episodes, int64 [E], ascending.

    Raises:
        UsageError: there is none, one is not in the store, or one comes twice.
    """
    count = len(store)
    chosen = np.arange(count) if episodes is None else np.sort(episode_numbers(episodes))
    if not len(chosen):
        raise UsageError(f"episodes: expected at least one; {store.path} holds {count}")
    if chosen[0] < 0 or chosen[-1] >= count or (np.diff(chosen) == 0).any():
        raise UsageError(f"episodes: expected different numbers from 0 to {count - 1}, got {chosen[0]} to {chosen[-1]}")
    return chosen


def episode_numbers(episodes: Sequence[int]) -> np.ndarray:
    """int64 [E]; raises `UsageError` unless all are whole numbers."""
    numbers = np.asarray(list(episodes))
    if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
        raise UsageError(f"episodes: expected whole numbers, got {episodes}")
    return numbers.astype(np.int64)


def row_ranges(store: EpisodeStore, episodes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first frames in the store and the lengths of episodes, int64 [E] each."""
    return np.asarray(store.offsets, np.int64)[episodes], np.asarray(store.lengths, np.int64)[episodes]


def tasks_of(store: EpisodeStore, episodes: np.ndarray) -> tuple[list[str], np.ndarray]:
    """The instructions of episodes, each once, and which of them each episode is, int64 [E]."""
    infos = store.episodes
    names = [infos[number].task for number in episodes]
    tasks = {task: index for index, task in enumerate(dict.fromkeys(names))}
    return list(tasks), np.array([tasks[name] for name in names], np.int64)


def store_ranges(starts: np.ndarray, lengths: np.ndarray, first: int, last: int) -> Iterator[tuple[int, int]]:
    """Where rows `first` to `last` of some episodes lie in the store, as few ranges of frames as possible.

    Args:
        starts: int64 [E], of the episodes in the store.
        lengths: int64 [E].
        first, last: rows, when those episodes follow one another without what lies between.
    """
    stops = np.cumsum(lengths)
    begin = end = -1
    for episode in range(int(np.searchsorted(stops, first, side="right")), len(stops)):
        before = int(stops[episode] - lengths[episode])
        if before >= last:
            break
        low, high = max(first, before) - before, min(last, int(stops[episode])) - before
        start = int(starts[episode])
        if start + low == end:
            end = start + high
            continue
        if end > begin:
            yield begin, end
        begin, end = start + low, start + high
    if end > begin:
        yield begin, end


def power_of_two(limit: int) -> int:
    """The largest one that is not above `limit`, at least 1."""
    return 1 << max(0, limit.bit_length() - 1)
