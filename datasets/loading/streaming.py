"""Windows of stores that fit neither memory nor the disk's cap: blocks of frames through a shuffle buffer.

The store is cut into blocks of consecutive frames. An epoch is a random order of the blocks; a round is as many of them
as half of the buffer holds, and its windows come out in random order while the next round is read. So the windows of a
batch are drawn uniformly from the blocks of one round, not from the whole store.

How far that is from uniform: a million frames in episodes of 200, 96x96x3, batches of 64 windows, the variance of a
batch's mean place in the store relative to a uniform shuffle (1.00), and episodes per batch (63.6 if uniform):

    buffer_frames   memory   blocks per round   variance   episodes per batch
    4,096           0.1 GB   14                 5.3        19
    16,384          0.5 GB   60                 2.0        44
    65,536          1.8 GB   61 (of 512)        2.1        54

About 1 + 63 / (blocks per round): where that matters, give a larger buffer, or `materialize` what fits.

B windows per batch, T offsets per key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.protocols import PAD_SUFFIX
from embodied.core.seeding import numpy_generator
from embodied.datasets.loading.episode_rows import checked_episodes, row_ranges, tasks_of
from embodied.datasets.loading.frame_size import ImageSize, sized, sized_shape
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead
from embodied.datasets.loading.stream_blocks import StreamBlocks, block_frames
from embodied.datasets.loading.window_index import WindowIndex, checked_windows, window_rows
from embodied.datasets.loading.windows import EPISODE_INDEX, FRAME_INDEX, TASK_INDEX
from embodied.datasets.store.episode_store import EpisodeStore


@dataclass(frozen=True)
class _Round:
    """Blocks that are read and shuffled together; `skip` of their windows were given before."""

    epoch: int
    number: int
    blocks: np.ndarray  # int64
    skip: int


@dataclass(frozen=True)
class _Buffer:
    """A round in memory: per key the frames of its blocks, and for each frame with a window where it belongs."""

    arrays: Mapping[str, np.ndarray]
    shifts: Mapping[str, np.ndarray]  # int64 per block: from a frame's number in the store to its row in `arrays`
    frames: np.ndarray  # int64, in the order in which their windows are given
    owners: np.ndarray  # int64: which of the chosen episodes
    places: np.ndarray  # int64: which block of the round


class StreamingWindows:
    """Batches as of `WindowDataset`, read from the store as they are needed; every window once per epoch.

    Windows never cross episodes. The batches are a function of the arguments and the step, so a run resumes at any
    step, for the price of reading one round. It reads ahead in threads of its own: worker processes are of no use.

    Args:
        store: with at least one episode.
        windows, episodes, whole: see `WindowDataset`.
        batch_size: B, of one rank.
        buffer_frames: in memory, of every key, in two rounds of at most half each (and the few blocks that are being
            decoded). More frames mix better.
        seed: of the orders.
        image_size: see `materialize`.
        rank, world_size: of processes that train together; each reads its share of the blocks, dealt anew every epoch.

    Raises:
        UsageError: an argument makes no sense, or the buffer is too small for a block and its windows.
    """

    def __init__(
        self,
        store: EpisodeStore,
        *,
        windows: Mapping[str, Sequence[int]],
        batch_size: int,
        buffer_frames: int,
        seed: int,
        episodes: Sequence[int] | None = None,
        whole: bool = False,
        image_size: ImageSize = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size < 1 or not 0 <= rank < world_size:
            raise UsageError(f"expected batch_size > 0 and a rank below world_size, got {batch_size}, {rank}")
        self.windows = checked_windows(windows, list(store.keys))
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self._store = store
        self._shapes = {key: sized_shape(key, store.keys[key], image_size) for key in self.windows}
        self._episodes = checked_episodes(store, episodes)
        self.tasks, self._task_indices = tasks_of(store, self._episodes)
        self._index = WindowIndex.of(*row_ranges(store, self._episodes), self.windows, whole=whole)
        size = block_frames({key: store.keys[key] for key in self.windows}, self.windows, buffer_frames)
        self._blocks = StreamBlocks.of(self._index, self.windows, size)
        self._room = buffer_frames // 2
        if not len(self):
            raise UsageError("no window fits into any episode: give shorter windows, or whole=False")
        if self._blocks.costs.max() > self._room:
            raise UsageError(f"buffer_frames must be at least {2 * int(self._blocks.costs.max())}, got {buffer_frames}")
        if len(self._blocks) < world_size:
            raise UsageError(f"{world_size} ranks share {len(self._blocks)} blocks: use fewer, or a smaller buffer")

    def __len__(self) -> int:
        """The number of windows, of all ranks together."""
        return len(self._index)

    @property
    def blocks_per_round(self) -> float:
        """How many blocks, about, the windows of a batch are drawn from."""
        return min(len(self._blocks), self._room / float(self._blocks.costs.mean()))

    def batches(self, *, start: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """The batches of steps `start`, `start + 1` and so on, epoch after epoch without end.

        Raises:
            UserError: the store is damaged, or the disk fails.
        """
        pieces: list[dict[str, np.ndarray]] = []
        missing = self.batch_size
        with closing(read_ahead(self._read, self._rounds(start * self.batch_size), threads=1)) as buffers:
            for buffer in buffers:
                given = 0
                while given < len(buffer.frames):
                    some = slice(given, given + missing)
                    pieces.append(self._gather(buffer, some))
                    found = len(pieces[-1][FRAME_INDEX])
                    given, missing = given + found, missing - found
                    if not missing:
                        yield {key: np.concatenate([piece[key] for piece in pieces]) for key in pieces[0]}
                        pieces, missing = [], self.batch_size

    def _rounds(self, position: int) -> Iterator[_Round]:
        """The rounds of this rank from its window number `position` on."""
        for epoch in count():
            order = numpy_generator(self.seed, "blocks", epoch).permutation(len(self._blocks))
            order = order[self.rank :: self.world_size]
            inside = int(self._blocks.counts[order].sum())
            if position >= inside:
                position -= inside
                continue
            for number, blocks in enumerate(self._blocks.packed(order, self._room)):
                windows = int(self._blocks.counts[blocks].sum())
                if position < windows:
                    yield _Round(epoch, number, blocks, position)
                position = max(0, position - windows)

    def _read(self, part: _Round) -> _Buffer:
        arrays, shifts = {}, {}
        for key in self.windows:
            lows, highs = self._blocks.lows[key][part.blocks], self._blocks.highs[key][part.blocks]
            bases = np.cumsum(highs - lows) - (highs - lows)
            array = np.empty((int((highs - lows).sum()), *self._shapes[key]), self._store.keys[key].dtype)
            ranges = list(zip(lows.tolist(), highs.tolist(), strict=True))
            for base, frames in zip(bases, read_ahead(self._reader(key), ranges, threads=cpu_threads()), strict=True):
                array[base : base + len(frames)] = frames
            arrays[key], shifts[key] = array, bases - lows
        frames, owners, places = self._blocks.windows(part.blocks)
        order = numpy_generator(self.seed, "windows", part.epoch, part.number, self.rank).permutation(len(frames))
        order = order[part.skip :]
        return _Buffer(arrays, shifts, frames[order], owners[order], places[order])

    def _reader(self, key: str) -> Callable[[tuple[int, int]], np.ndarray]:
        shape = self._shapes[key]
        return lambda part: sized(key, self._store.read(key, *part), shape)

    def _gather(self, buffer: _Buffer, some: slice) -> dict[str, np.ndarray]:
        frames, owners, places = buffer.frames[some], buffer.owners[some], buffer.places[some]
        starts, stops = self._index.starts[owners], self._index.stops[owners]
        batch = {
            EPISODE_INDEX: self._episodes[owners],
            FRAME_INDEX: frames - starts,
            TASK_INDEX: self._task_indices[owners],
        }
        for key, offsets in self.windows.items():
            rows, batch[key + PAD_SUFFIX] = window_rows(frames, starts, stops, offsets)
            batch[key] = buffer.arrays[key][rows + buffer.shifts[key][places][:, None]]
        return batch
