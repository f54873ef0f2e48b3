"""The reading side of an episode store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

import embodied.datasets.store.jpeg_codec  # noqa: F401  (registers it, so that zarr reads a store)
from embodied.core.errors import UsageError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.storage.location import S3_SCHEME, Storage
from embodied.datasets.store.episode_index import JPEG, EpisodeInfo, KeySpec
from embodied.datasets.store.frame_arrays import DamagedFramesError, FrameArray, damage_error
from embodied.datasets.store.running_statistics import statistics_shape
from embodied.datasets.store.store_header import OLDEST_SCHEMA, SCHEMA
from embodied.datasets.store.store_index import StoreIndex
from embodied.datasets.store.store_validation import Damage, validate_store


class StoredEpisodes:
    """The episodes of a store: a snapshot, which `refresh` renews. `EpisodeStore` opens it."""

    def __init__(self, storage: Storage, index: StoreIndex, *, path: str | Path) -> None:
        self.path = storage.location if storage.location.startswith(S3_SCHEME) else Path(path)
        self._storage, self._index = storage, index
        layouts = index.header.layouts
        self._arrays = {key: FrameArray(storage, key, spec, layouts[key]) for key, spec in index.header.keys.items()}

    def refresh(self) -> int:
        """Renew the snapshot.

        Returns:
            How many episodes are new: others have appended them.

        Raises:
            UserError: the index is damaged.
        """
        before = len(self)
        self._index = self._index.refreshed(self._storage)
        return len(self) - before

    def __len__(self) -> int:
        """The number of episodes."""
        return len(self._index.episodes)

    @property
    def schema(self) -> int:
        """The version of the format on disk."""
        return OLDEST_SCHEMA if self._index.old_schema else SCHEMA

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
        return self._index.header.keys

    @property
    def image_keys(self) -> list[str]:
        return [key for key in self.keys if key.startswith(IMAGE_PREFIX)]

    @property
    def fps(self) -> float:
        return self._index.header.fps

    @property
    def robot(self) -> str:
        return self._index.header.robot

    @property
    def provenance(self) -> Mapping[str, Any]:
        return self._index.header.provenance

    def fingerprint(self) -> str:
        """SHA-256 (hex) that any change of a committed episode's values, task, seed or success changes."""
        return self._index.fingerprint

    def read(self, key: str, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop` of a key over the whole store, [stop - start, ...].

        Raises:
            UsageError: there is no such key or frame.
            UserError: the frames on disk are damaged; names file, key, episode and chunk.
        """
        array = self._array(key, start, stop)
        try:
            return array.read(start, stop)
        except DamagedFramesError as error:
            raise damage_error(self._storage.location, key, error, self._index.episodes) from error

    def read_encoded(self, key: str, start: int, stop: int) -> list[bytes]:
        """The frames of a key with the `jpeg` codec as JPEG files, without decoding them; raises like `read`."""
        array, found = self._array(key, start, stop), []
        if self.keys[key].codec != JPEG:
            raise UsageError(f"{key} of {self.path} is kept as {self.keys[key].codec}, not as jpeg: use read")
        for _, _, payload in array.payloads(start, stop):
            if isinstance(payload, DamagedFramesError):
                raise damage_error(self._storage.location, key, payload, self._index.episodes)
            found += list(payload)
        return found

    def _array(self, key: str, start: int, stop: int) -> FrameArray:
        if key not in self._arrays:
            raise unknown_name("key", key, self.keys)
        if not 0 <= start <= stop <= self.num_frames:
            raise UsageError(f"frames {start} to {stop} are not in {self.path}, which holds {self.num_frames}")
        return self._arrays[key]

    def read_episode(self, episode: int, keys: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """The arrays [T, ...] of one episode: of all keys, or of those named."""
        if not 0 <= episode < len(self):
            raise UsageError(f"episode {episode} is not in {self.path}, which holds {len(self)}")
        info = self._index.episodes[episode]
        names = self.keys if keys is None else keys
        return {key: self.read(key, info.start, info.stop) for key in names}

    def statistics(self, key: str) -> dict[str, np.ndarray]:
        """float64 `mean`, `std`, `min`, `max`, `q01`, `q10`, `q50`, `q90` and `q99` of a key.

        Of a vector they have a frame's shape and count all frames; up to 1023 frames the quantiles are exact, beyond
        that approximate (see `quantile_sketch`). Of images they are per channel, [C] in [0, 255], of depth maps and
        other large frames one number; over a sample of frames and pixels (see `running_statistics`).

        Raises:
            UsageError: there is no such key, or no value of it.
            UserError: the index is damaged.
        """
        if key not in self.keys:
            raise unknown_name("key", key, self.keys)
        found = self._index.statistics(key, self._storage.location, lambda start, stop: self.read(key, start, stop))
        if found is None:
            raise UsageError(f"{self.path} has no finite value of {key}, so no statistics of it")
        return found.summary(statistics_shape(key, self.keys[key]))

    def validate(self) -> Iterator[Damage]:
        """Read everything that is stored now and compare; gives every damage. For a store that does not even open
        see `validate_store`.
        """
        return validate_store(self._storage)
