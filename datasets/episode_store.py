"""Episodes on disk: one zarr v3 group, per key one array with time concatenated, and an index of the episodes.

    with EpisodeStore.create("demos", keys={"action": KeySpec("float32", (4,))}, fps=80) as store:
        store.append({"action": actions}, task="hammer-v3", seed=0, success=True)
    EpisodeStore.open("demos").read_episode(0)["action"]

What the index does not name does not exist: an append writes frames beyond the committed ones, then replaces the index
(the group's metadata file) at once. A process killed in between loses that one episode, and the next append overwrites
what it left.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import zarr

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.disk import FileLock, disk_errors
from embodied.datasets.episode_checks import checked_arrays, checked_fps, checked_json, checked_keys
from embodied.datasets.episode_index import EpisodeIndex, EpisodeInfo, KeySpec, RunningStatistics, has_statistics
from embodied.datasets.frame_arrays import DamagedFramesError, FrameArray, content_hash, create_array

_REMEDY = "restore the store from a copy, or collect it again"


class EpisodeStore:
    """An opened store: a snapshot of its index when reading, the only writer when appending."""

    def __init__(self, path: Path, index: EpisodeIndex, lock: FileLock | None) -> None:
        self.path = path
        self._index = index
        self._lock = lock
        self._arrays = {
            key: FrameArray(path, key, spec, frames=index.num_frames, writable=lock is not None)
            for key, spec in index.keys.items()
        }
        self._fingerprint: str | None = None

    @classmethod
    def create(
        cls,
        path: str | Path,
        *,
        keys: Mapping[str, KeySpec],
        fps: float,
        robot: str = "",
        provenance: Mapping[str, Any] | None = None,
    ) -> EpisodeStore:
        """Make an empty store and open it for appending.

        `path` must not exist yet, or be empty; `fps` counts frames per second; `provenance` is JSON-able and says how
        the episodes are made.

        Raises:
            UsageError: an argument makes no sense.
            UserError: something is at `path` already, or the disk fails.
        """
        path = Path(path)
        index = EpisodeIndex(checked_keys(keys), checked_fps(fps), robot, checked_json(provenance or {}))
        temporary = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
        with disk_errors(path, "creating the episode store"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                group = zarr.open_group(str(temporary), mode="w", zarr_format=3)
                for key, spec in index.keys.items():
                    create_array(group, key, spec)
                index.write(temporary)
                if path.exists() and (not path.is_dir() or any(path.iterdir())):
                    raise UserError(f'{path} exists already: open it with mode="a" to append, or choose another path')
                os.rename(temporary, path)  # fails, and leaves both, if somebody was faster
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        return cls.open(path, mode="a")

    @classmethod
    def open(cls, path: str | Path, *, mode: Literal["r", "a"] = "r") -> EpisodeStore:
        """Open a store, for reading or for appending.

        Raises:
            UserError: there is none, it is damaged or of a newer schema, or somebody else is appending to it.
        """
        path = Path(path)
        if mode not in ("r", "a"):
            raise UsageError(f'mode must be "r" or "a", got {mode!r}')
        EpisodeIndex.read(path)  # a foreign folder gets no lock file beside it
        lock = None
        if mode == "a":
            with disk_errors(path, "opening for appending"):
                lock = FileLock(path.parent / f".{path.name}.lock")
                if not lock.acquire(wait=False):
                    raise UserError(f"{lock.holder()} is writing to {path}: wait until it is done, or stop it")
                for pattern in ("*.partial", ".zarr.json.*.tmp"):  # what a killed writer was in the middle of
                    for leftover in path.rglob(pattern):
                        leftover.unlink()
        return cls(path, EpisodeIndex.read(path), lock)

    def close(self) -> None:
        """Let others append; reading goes on working."""
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._index.episodes)

    @property
    def num_frames(self) -> int:
        return self._index.num_frames

    @property
    def episodes(self) -> list[EpisodeInfo]:
        return list(self._index.episodes)

    @property
    def lengths(self) -> list[int]:
        return [episode.length for episode in self._index.episodes]

    @property
    def offsets(self) -> list[int]:
        """The first frame of each episode."""
        return [episode.start for episode in self._index.episodes]

    @property
    def keys(self) -> Mapping[str, KeySpec]:
        return self._index.keys

    @property
    def image_keys(self) -> list[str]:
        return [key for key in self._index.keys if key.startswith(IMAGE_PREFIX)]

    @property
    def fps(self) -> float:
        return self._index.fps

    @property
    def robot(self) -> str:
        return self._index.robot

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self._index.provenance

    def fingerprint(self) -> str:
        """SHA-256 (hex) that any change of a committed episode's values, task, seed or success changes."""
        self._fingerprint = self._fingerprint or self._index.fingerprint()
        return self._fingerprint

    def append(self, arrays: Mapping[str, np.ndarray], *, task: str, seed: int, success: bool) -> int:
        """Add one episode: all of it or, when anything fails, nothing.

        Args:
            arrays: for every key of the store an array [T, ...] of exactly its dtype and frame shape, T at least 1.
            task: the instruction.
            seed: of the environment.
            success: whether the episode reached its goal.

        Returns:
            The episode's number.

        Raises:
            UsageError: the arrays are not what the store's keys say.
            UserError: the store is not open for appending, the disk fails, or the store is damaged.
        """
        if self._lock is None or not self._lock.held:
            raise UserError(f'{self.path} is not open for appending: use EpisodeStore.open(path, mode="a")')
        length = checked_arrays(arrays, self.keys)
        start, number = self.num_frames, len(self)
        hashes = {key: content_hash(arrays[key]) for key in self.keys}
        episode = EpisodeInfo(number, start, length, str(task), int(seed), bool(success), hashes)
        statistics = {
            key: RunningStatistics.of(arrays[key]) for key, spec in self.keys.items() if has_statistics(key, spec)
        }
        index = self._index.with_episode(episode, statistics)
        with disk_errors(self.path, f"writing episode {number}"):
            for key, array in self._arrays.items():
                try:
                    array.write(start, arrays[key])
                except DamagedFramesError as error:
                    raise self._damaged(key, error) from error
            for array in self._arrays.values():
                array.sync(start, start + length)
            index.write(self.path)
        self._index, self._fingerprint = index, None
        return number

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` of a key over the whole store, [stop - start, ...].

        Raises:
            UsageError: there is no such key or frame.
            UserError: the frames on disk are damaged; names file, key and episode.
        """
        if key not in self._arrays:
            raise unknown_name("key", key, self.keys)
        if not 0 <= start <= stop <= self.num_frames:
            raise UsageError(f"frames {start} to {stop} are not in {self.path}, which holds {self.num_frames}")
        with disk_errors(self.path, f"reading {key}"):
            try:
                return self._arrays[key].read(start, stop)
            except DamagedFramesError as error:
                raise self._damaged(key, error) from error

    def read_episode(self, episode: int, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays [T, ...] of one episode: of all keys, or of those named."""
        if not 0 <= episode < len(self):
            raise UsageError(f"episode {episode} is not in {self.path}, which holds {len(self)}")
        info = self._index.episodes[episode]
        names = self.keys if keys is None else keys
        return {key: self.read(key, info.start, info.start + info.length) for key in names}

    def statistics(self, key: str) -> dict[str, np.ndarray]:
        """float64 `mean`, `std`, `min` and `max` over all frames, each of a frame's shape; not kept for images."""
        if key not in self.keys:
            raise unknown_name("key", key, self.keys)
        if not has_statistics(key, self.keys[key]):
            raise UsageError(f"{self.path} keeps no statistics of {key}: {self.keys[key].describe()} is an image")
        if not len(self):
            raise UsageError(f"{self.path} has no episodes, so no statistics of {key}")
        return self._index.statistics[key].summary()

    def verify(self) -> None:
        """Read everything and compare with the hashes taken when it was appended.

        Raises:
            UserError: names the first damaged episode and key.
        """
        for info in self._index.episodes:
            for key in self.keys:
                if content_hash(self.read(key, info.start, info.start + info.length)) != info.hashes[key]:
                    files = ", ".join(map(str, self._arrays[key].paths(info.start, info.start + info.length)))
                    raise UserError(f"{files}: key {key}, episode {info.index} is not what was written; {_REMEDY}")

    def _damaged(self, key: str, error: DamagedFramesError) -> UserError:
        touched = [e.index for e in self._index.episodes if e.start < error.stop and e.start + e.length > error.start]
        numbers = f"episode {touched[0]}" if len(touched) == 1 else f"episodes {touched[0]} to {touched[-1]}"
        return UserError(f"{error.path} is damaged: key {key}, {numbers}; {_REMEDY}")
