"""Episodes on disk: one zarr v3 group, per key one array with time concatenated, and an index of the episodes.

    with EpisodeStore.create("demos", keys={"action": KeySpec("float32", (4,))}, fps=80) as store:
        store.append({"action": actions}, task="hammer-v3", seed=0, success=True)
    EpisodeStore.open("demos").read_episode(0)["action"]

What the index does not name does not exist: an append writes frames beyond the committed ones, then adds one file to
the index. A process killed in between loses that one episode, and the next append overwrites what it left. Any number
of processes may append, each commits under a lock; readers hold the snapshot of when they opened or refreshed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.datasets.storage.local import LocalStorage, local_staging
from embodied.datasets.storage.location import Storage, open_storage
from embodied.datasets.store.episode_checks import checked_fps, checked_json, checked_keys
from embodied.datasets.store.episode_index import FILE_NAME, KeySpec
from embodied.datasets.store.episode_writer import EpisodeWriter
from embodied.datasets.store.index_segments import GROUP_FILE, group_bytes
from embodied.datasets.store.store_header import StoreHeader, array_files, layout, to_bytes
from embodied.datasets.store.store_index import StoreIndex
from embodied.datasets.store.store_migration import LOCK_WAIT_S, migrate, open_index
from embodied.datasets.store.stored_episodes import StoredEpisodes


class EpisodeStore(StoredEpisodes):
    """An opened store: a snapshot of its episodes, which `append` and `refresh` renew."""

    def __init__(self, storage: Storage, index: StoreIndex, *, path: str | Path, appendable: bool) -> None:
        super().__init__(storage, index, path=path)
        self._appendable, self._swept = appendable, False

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

        `path` (a folder or `s3://bucket/prefix`) must not exist yet, or be empty; `fps` counts frames per second;
        `provenance` is JSON-able and says how the episodes are made.

        Raises:
            UsageError: an argument makes no sense.
            UserError: something is at `path` already, or the disk fails.
        """
        specs = checked_keys(keys)
        layouts = {key: layout(spec) for key, spec in specs.items()}
        made = checked_json("provenance", provenance or {})
        header = StoreHeader(specs, layouts, checked_fps(fps), str(robot), made)
        storage = open_storage(path)
        if not storage.writable:
            raise UserError(f"{storage.location} can only be read: create the store in a folder or at s3://")
        with storage.lock(wait_s=LOCK_WAIT_S):
            if storage.exists():
                raise UserError(f'{path} exists already: open it with mode="a" to append, or choose another path')
            storage.write(FILE_NAME, to_bytes(header.document()))
            for name, data in ((GROUP_FILE, group_bytes()), *array_files(header, 0)):
                storage.write(name, data)
        return cls(storage, StoreIndex(header), path=path, appendable=True)

    @classmethod
    def open(cls, path: str | Path, *, mode: Literal["r", "a"] = "r") -> EpisodeStore:
        """Open a store (a folder, a .zip file or `s3://bucket/prefix`), for reading or for appending too.

        A store of an older schema is read as it is; opened for appending it is brought to today's in place.

        Raises:
            UserError: there is none, it is damaged or of a newer schema, or it can only be read.
        """
        if mode not in ("r", "a"):
            raise UsageError(f'mode must be "r" or "a", got {mode!r}')
        storage = open_storage(path)
        if mode == "a":
            if not storage.writable:
                raise UserError(f"{storage.location} can only be read: unpack it into a folder to append")
            migrate(path)
        return cls(storage, open_index(storage), path=path, appendable=mode == "a")

    def close(self) -> None:
        """Append no more; reading goes on working."""
        self._appendable = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def append(
        self,
        arrays: Mapping[str, np.ndarray],
        *,
        task: str,
        seed: int | None = None,
        success: bool | None = None,
        origin: str = "",
        notes: Mapping[str, Any] | None = None,
    ) -> int:
        """Add one episode: all of it or, when anything fails, nothing.

        Args:
            arrays: for every key of the store an array [T, ...] of exactly its dtype and frame shape, T at least 1.
            task: the instruction.
            seed: of the environment; None if there is none.
            success: whether the episode reached its goal; None if nobody knows.
            origin: names the episode inside the source it comes from.
            notes: JSON-able; whatever else is worth keeping.

        Returns:
            The episode's number.

        Raises:
            UsageError: the arrays are not what the store's keys say.
            UserError: the store is not open for appending, the disk fails, or the store is damaged.
        """
        self._require_appendable()
        episode = EpisodeWriter(self._arrays, None, task=task, seed=seed, success=success, origin=origin, notes=notes)
        episode.write(arrays)
        return self._commit(episode)

    @contextmanager
    def writer(
        self,
        *,
        task: str,
        seed: int | None = None,
        success: bool | None = None,
        origin: str = "",
        notes: Mapping[str, Any] | None = None,
    ) -> Iterator[EpisodeWriter]:
        """Add one episode block by block, in memory that does not grow with it; see `append` for arguments and errors.

        The frames wait in a temporary folder (of each key with JPEGs the first 32 MiB in memory) and become an episode
        when the `with` block ends. When it raises, nothing is added.
        """
        self._require_appendable()
        beside = self._storage.folder if isinstance(self._storage, LocalStorage) else None
        root = beside and beside.parent / f".{beside.name}.staging"
        with local_staging(root) as folder:
            episode = EpisodeWriter(
                self._arrays, folder, task=task, seed=seed, success=success, origin=origin, notes=notes
            )
            yield episode
            if not episode.length:
                raise UsageError(f"an episode of {self._storage.location} needs at least 1 frame, got none")
            self._commit(episode)

    def _commit(self, episode: EpisodeWriter) -> int:
        self._require_appendable()
        with self._storage.lock(wait_s=LOCK_WAIT_S):
            if not self._swept:
                self._storage.sweep()
                self._swept = True
            self._index = self._index.refreshed(self._storage)
            self._index = episode.commit(self._storage, self._index)
        assert episode.index is not None
        return episode.index

    def _require_appendable(self) -> None:
        if not self._appendable:
            raise UserError(f'{self.path} is not open for appending: use EpisodeStore.open(path, mode="a")')
