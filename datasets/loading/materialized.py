"""What a run reads of an episode store, decoded once into memory-mapped files that all processes share.

    data = materialize(store, keys=["observation.images.front", "action"], image_size=96, cache_root="cache")
    windows = WindowDataset(data, windows={"observation.images.front": [-1, 0], "action": range(16)})

A zarr call costs a millisecond or two, a row of a memory map a microsecond. Each key is a cache of its own, named by
the store's fingerprint, the key, the image size and the episodes: runs that differ in one key share the others, a
killed run goes on where it was, and caches that nobody has open make room for new ones under a cap.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import hash_json
from embodied.core.protocols import Reporter
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.cache_plan import CachePlan
from embodied.datasets.loading.cache_space import PROGRESS
from embodied.datasets.loading.episode_rows import checked_episodes, power_of_two, row_ranges, store_ranges, tasks_of
from embodied.datasets.loading.frame_size import ImageSize, sized, sized_shape
from embodied.datasets.loading.npy_rows import ArraySpec, Rows
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead
from embodied.datasets.storage.disk import require_free
from embodied.datasets.store.episode_store import EpisodeStore

FILE_BYTES = 1 << 30
_BLOCK_BYTES = 32 << 20  # of decoded frames read at a time: bounds memory, and what a crash costs
_MOST_ROWS = 1 << 16
_VALUES = "values"
_INDEX = {name: ArraySpec("int64", ()) for name in ("start", "length", "episode_index", "task_index")}


class Materialized:
    """The rows of some keys over some episodes, one episode after the other; made by `materialize`.

    Held open so that nobody deletes it; cheap to send to worker processes, which map the files themselves.

    Attributes:
        rows: per key the rows [F, ...].
        fps: frames per second.
    """

    def __init__(self, rows: Mapping[str, Rows], index: Mapping[str, Rows], *, fps: float) -> None:
        self.rows = dict(rows)
        self.fps = fps
        self._index = dict(index)
        self._caches: list[ArrayCache] = []  # held open
        self._hashes: dict[str, str] = {}

    @property
    def num_frames(self) -> int:
        """F."""
        return int(self.starts[-1] + self.lengths[-1])

    @property
    def starts(self) -> np.ndarray:
        """int64 [E]: the first row of each episode."""
        return self._index["start"].maps()[0]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [E]: rows per episode."""
        return self._index["length"].maps()[0]

    @property
    def episodes(self) -> np.ndarray:
        """int64 [E]: the numbers of the episodes in the store, ascending."""
        return self._index["episode_index"].maps()[0]

    @property
    def task_indices(self) -> np.ndarray:
        """int64 [E]: which of `tasks` each episode is."""
        return self._index["task_index"].maps()[0]

    @property
    def tasks(self) -> list[str]:
        """The instructions that occur."""
        return list(json.loads((self._index["start"].folder / PROGRESS).read_bytes())["identity"]["tasks"])

    @property
    def size_bytes(self) -> int:
        return sum(len(rows) * rows.spec.row_bytes for rows in self.rows.values())

    def fingerprint(self) -> str:
        """SHA-256 (hex) of what is materialised: keys, sizes, episodes and the store's content."""
        return hash_json({key: [rows.folder.name, rows.name] for key, rows in self.rows.items()})

    def content_hash(self, key: str) -> str:
        """SHA-256 (hex) of the values of a key that was materialised, and their order."""
        return self._hashes[key]

    def with_rows(self, key: str, rows: Rows) -> Materialized:
        """The same with one more key, such as `cache.rows("pooled")` of a feature cache of the same frames."""
        if len(rows) != self.num_frames:
            raise UsageError(f"{key}: expected {self.num_frames} rows, one per frame, got {len(rows)}")
        more = Materialized({**self.rows, key: rows}, self._index, fps=self.fps)
        more._caches, more._hashes = self._caches, self._hashes
        return more

    def close(self) -> None:
        """Let others delete it; what is mapped stays readable."""
        for cache in self._caches:
            cache.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_caches": []}


def materialize(
    store: EpisodeStore,
    *,
    keys: Sequence[str],
    image_size: ImageSize = None,
    episodes: Sequence[int] | None = None,
    cache_root: str | Path,
    max_bytes: int | None = None,
    reporter: Reporter | None = None,
    threads: int | None = None,
) -> Materialized:
    """Decode what is not there yet, and open it.

    Args:
        store: with at least one episode.
        keys: to materialise; see `frame_size.sized` for what `image_size` does to each kind.
        image_size: height and width, one number for both, or None for the size in the store.
        episodes: their numbers; all by default.
        cache_root: the folder of caches, shared by processes.
        max_bytes: of all caches in that folder together: others make room, the least recently used first.
        reporter: shows progress.
        threads: that decode, each about 32 MB of frames at a time; by default one per processor, up to 8.

    Raises:
        UsageError: there is no such key or episode, or an argument makes no sense.
        UserError: it is larger than the cap or the free disk, the store is damaged, or the disk fails.
    """
    chosen = checked_episodes(store, episodes)
    if not keys:
        raise UsageError(f"keys: expected at least one of {', '.join(store.keys)}")
    root = Path(cache_root)
    plans = {key: _plan(store, key, image_size, chosen, root) for key in dict.fromkeys(keys)}
    _require_room(plans, root, max_bytes)
    opened: list[ArrayCache] = []
    try:
        index = _open_index(store, chosen, root)
        opened.append(index)
        # Those that are there come first, so that making room for the others does not delete them.
        for key, plan in sorted(plans.items(), key=lambda item: not item[1].is_there()):
            cache = _open(plan, max_bytes=max_bytes)
            opened.append(cache)
            _fill(cache, store, key, chosen, reporter or SilentReporter(), threads or cpu_threads())
        by_path = {cache.path: cache for cache in opened}
        rows = {key: by_path[plan.path].rows(_VALUES) for key, plan in plans.items()}
        data = Materialized(rows, {name: index.rows(name) for name in _INDEX}, fps=store.fps)
        data._caches = opened
        data._hashes = {key: by_path[plan.path].content_hash() for key, plan in plans.items()}
        return data
    except BaseException:
        for cache in opened:
            cache.close()
        raise


def materialize_index(
    store: EpisodeStore, *, episodes: Sequence[int] | None = None, cache_root: str | Path
) -> Materialized:
    """The same without any key, for `with_rows`: where all that is read lies in other caches."""
    index = _open_index(store, checked_episodes(store, episodes), Path(cache_root))
    data = Materialized({}, {name: index.rows(name) for name in _INDEX}, fps=store.fps)
    data._caches = [index]
    return data


def _plan(store: EpisodeStore, key: str, image_size: ImageSize, episodes: np.ndarray, root: Path) -> CachePlan:
    if key not in store.keys:
        raise unknown_name("key", key, store.keys)
    spec = store.keys[key]
    shape = sized_shape(key, spec, image_size)
    identity = {"kind": "materialized", "key": key, "image_size": None if shape == spec.shape else list(shape[:2])}
    outputs = {_VALUES: ArraySpec(spec.dtype, shape)}
    rows = int(row_ranges(store, episodes)[1].sum())
    return CachePlan(root, {**identity, **_content(store, episodes)}, outputs, rows, FILE_BYTES)


def _content(store: EpisodeStore, episodes: np.ndarray) -> dict[str, Any]:
    chosen = "all" if len(episodes) == len(store) else hash_json(episodes.tolist())
    return {"store": store.fingerprint(), "episodes": chosen}


def _open(plan: CachePlan, *, max_bytes: int | None) -> ArrayCache:
    return ArrayCache(
        plan.root,
        identity=plan.identity,
        outputs=plan.outputs,
        num_rows=plan.num_rows,
        file_bytes=plan.file_bytes,
        max_bytes=max_bytes,
        finite=False,  # whatever the store holds; depth may be nan where nothing was seen
    )


def _open_index(store: EpisodeStore, episodes: np.ndarray, root: Path) -> ArrayCache:
    tasks, task_indices = tasks_of(store, episodes)
    lengths = row_ranges(store, episodes)[1]
    identity = {"kind": "materialized index", "tasks": tasks, **_content(store, episodes)}
    cache = _open(CachePlan(root, identity, _INDEX, len(episodes)), max_bytes=None)
    if not cache.complete:
        columns = {"start": np.cumsum(lengths) - lengths, "length": lengths, "episode_index": episodes}
        rows = {**columns, "task_index": task_indices}
        cache.write(cache.done, {name: column[cache.done :] for name, column in rows.items()})
    return cache


def _require_room(plans: Mapping[str, CachePlan], root: Path, max_bytes: int | None) -> None:
    """All keys together, before hours go into the first."""
    total = sum(plan.size_bytes for plan in plans.values())
    if max_bytes is not None and total > max_bytes:
        sizes = ", ".join(f"{key} {plan.size_bytes / 1e9:.2f}" for key, plan in plans.items())
        raise UserError(
            f"{total / 1e9:.2f} GB to materialise ({sizes}), and the cap is {max_bytes / 1e9:.2f} GB: raise max_bytes, "
            "take fewer keys or episodes or a smaller image_size, or stream (StreamingWindows)"
        )
    require_free(root, sum(plan.size_bytes for plan in plans.values() if not plan.path.is_dir()))


def _fill(
    cache: ArrayCache, store: EpisodeStore, key: str, episodes: np.ndarray, reporter: Reporter, threads: int
) -> None:
    spec, shape = store.keys[key], cache.outputs[_VALUES].shape
    row_bytes = max(ArraySpec(spec.dtype, spec.shape).row_bytes, 1)
    # A power of two, as the store's chunks are: blocks of a whole store decode no chunk twice.
    block = power_of_two(min(_MOST_ROWS, _BLOCK_BYTES // row_bytes))
    starts, lengths = row_ranges(store, episodes)

    def decode(rows: Range) -> dict[str, np.ndarray]:
        parts = [store.read(key, first, last) for first, last in store_ranges(starts, lengths, *rows)]
        return {_VALUES: sized(key, parts[0] if len(parts) == 1 else np.concatenate(parts), shape)}

    def blocks(ranges: Sequence[Range]) -> Blocks:
        yield from read_ahead(decode, ranges, threads=threads)

    cache.fill(blocks, block=block, description=f"materialize {key}", reporter=reporter)
