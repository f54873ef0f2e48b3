"""The blocks of consecutive frames that `StreamingWindows` reads, and the frames around them that windows reach."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

import numpy as np

from embodied.datasets.loading.episode_rows import power_of_two
from embodied.datasets.loading.window_index import WindowIndex
from embodied.datasets.store.episode_index import KeySpec

_SHARD_BYTES = 32 << 20  # about what a file of the store holds
_LEAST_BYTES = 4 << 20  # a few of its chunks: less, and those at the edges would be decoded for little
_BLOCKS_PER_ROUND = 64


def block_frames(keys: Mapping[str, KeySpec], windows: Mapping[str, np.ndarray], buffer_frames: int) -> int:
    """Frames per block, a power of two like the store's chunks: the smaller, the better windows mix.

    64 blocks share half of the buffer, unless they would be larger than a file of the store or smaller than a few of
    its chunks; and at least half of what is read are frames of the block itself, not of windows that reach beyond it.
    """
    key = max(keys, key=lambda name: np.dtype(keys[name].dtype).itemsize * prod(keys[name].shape))
    frame_bytes = max(1, np.dtype(keys[key].dtype).itemsize * prod(keys[key].shape))
    reach = max(0, int(windows[key].max())) - min(0, int(windows[key].min()))
    wanted = min(power_of_two(buffer_frames // (2 * _BLOCKS_PER_ROUND)), power_of_two(_SHARD_BYTES // frame_bytes))
    least = max(power_of_two(_LEAST_BYTES // frame_bytes), power_of_two(2 * reach))
    return min(max(wanted, least), power_of_two(buffer_frames // 4))


@dataclass(frozen=True)
class StreamBlocks:
    """K blocks that hold frames with windows, in the order of the store.

    Attributes:
        counts: int64 [K], windows per block.
        lows, highs: per key int64 [K], the frames that the windows of a block reach.
        costs: int64 [K], frames in memory: the most of any key.
    """

    counts: np.ndarray
    lows: Mapping[str, np.ndarray]
    highs: Mapping[str, np.ndarray]
    costs: np.ndarray
    _firsts: np.ndarray  # per segment, the part of an episode in a block: its first frame,
    _stops: np.ndarray  # the one after its last,
    _owners: np.ndarray  # and its episode
    _segments: np.ndarray  # int64 [K + 1]: where the segments of each block begin

    @classmethod
    def of(cls, index: WindowIndex, windows: Mapping[str, np.ndarray], size: int) -> StreamBlocks:
        """The blocks of `size` frames of the episodes and windows of `index`."""
        chosen = np.flatnonzero(index.counts)
        first, stop = index.first[chosen], (index.first + index.counts)[chosen]
        pieces = (stop - 1) // size - first // size + 1  # segments per episode
        owners = np.repeat(chosen, pieces)
        numbers = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        blocks = np.repeat(first // size, pieces) + numbers
        firsts = np.maximum(np.repeat(first, pieces), blocks * size)
        stops = np.minimum(np.repeat(stop, pieces), (blocks + 1) * size)
        begins = np.flatnonzero(np.diff(blocks, prepend=-1)) if len(blocks) else np.empty(0, np.int64)
        lows, highs = {}, {}
        for key, offsets in windows.items():
            bounds = index.starts[owners], index.stops[owners] - 1
            low, high = np.clip(firsts + offsets.min(), *bounds), np.clip(stops - 1 + offsets.max(), *bounds) + 1
            lows[key] = np.minimum.reduceat(low, begins) if len(begins) else low
            highs[key] = np.maximum.reduceat(high, begins) if len(begins) else high
        counts = np.add.reduceat(stops - firsts, begins) if len(begins) else firsts
        costs = np.max([highs[key] - lows[key] for key in windows], axis=0)
        return cls(counts, lows, highs, costs, firsts, stops, owners, np.append(begins, len(blocks)))

    def __len__(self) -> int:
        return len(self.counts)

    def packed(self, order: np.ndarray, room: int) -> Iterator[np.ndarray]:
        """The blocks in `order`, in groups that cost about the same, at most `room` frames."""
        costs = self.costs[order]
        groups = -(-int(costs.sum()) // max(1, room - int(costs.max())))  # a group ends within one block of its share
        numbers = (np.cumsum(costs) - costs) * groups // costs.sum()
        yield from np.split(order, np.flatnonzero(np.diff(numbers)) + 1)

    def windows(self, blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The frames with windows in some blocks, their episodes, and which of the blocks they are in: int64 each."""
        segments = [np.arange(self._segments[block], self._segments[block + 1]) for block in blocks]
        chosen = np.concatenate(segments)
        lengths = self._stops[chosen] - self._firsts[chosen]
        frames = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths - self._firsts[chosen], lengths)
        places = np.repeat(np.arange(len(blocks)), [len(part) for part in segments])
        return frames, np.repeat(self._owners[chosen], lengths), np.repeat(places, lengths)
