"""An episode on its way into a store: checked, hashed and counted block by block, kept outside until it is whole."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.storage.location import Storage
from embodied.datasets.store.chunk_codecs import DamagedChunkError, Payload, check_jpeg
from embodied.datasets.store.episode_checks import checked_arrays, checked_json, checked_seed, checked_success
from embodied.datasets.store.episode_index import JPEG, EpisodeInfo, KeySpec
from embodied.datasets.store.frame_arrays import DamagedFramesError, FrameArray, damage_error
from embodied.datasets.store.index_segments import GROUP_FILE, group_bytes
from embodied.datasets.store.planar_frames import Frames, PlanarFrames
from embodied.datasets.store.running_statistics import EpisodeStatistics
from embodied.datasets.store.store_header import array_files
from embodied.datasets.store.store_index import StoreIndex

_HELD_BYTES = 32 << 20  # of compressed frames of a key

EncodedFrames = Mapping[str, Sequence[bytes | None]]
"""By key the JPEG file of each frame; None where a frame has none."""


class _Frames(Protocol):
    """Where the payloads of one key wait."""

    def add(self, payload: Payload) -> None: ...

    def read(self, start: int, stop: int) -> Payload: ...


class _HeldFrames:
    """In memory: the one block of an episode that came whole."""

    def __init__(self) -> None:
        self._payload: Payload = []

    def add(self, payload: Payload) -> None:
        self._payload = payload

    def read(self, start: int, stop: int) -> Payload:
        return self._payload[start:stop]


class _StagedArrays:
    """Values in a file."""

    def __init__(self, path: Path, spec: KeySpec) -> None:
        self._path, self._spec = path, spec
        self._frame_values = prod(spec.shape)

    def add(self, payload: Payload) -> None:
        with open(self._path, "ab") as handle:
            handle.write(np.ascontiguousarray(payload).data.cast("B"))

    def read(self, start: int, stop: int) -> Payload:
        dtype, each = np.dtype(self._spec.dtype), self._frame_values
        offset, count = start * each * dtype.itemsize, (stop - start) * each
        return np.fromfile(self._path, dtype, count, offset=offset).reshape(stop - start, *self._spec.shape)


class _StagedPictures:
    """Compressed frames: the first in memory, all those of most episodes; the others in a file, with their ends."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._held: list[bytes] = []
        self._left = _HELD_BYTES
        self._ends = array("Q", [0])

    def add(self, payload: Payload) -> None:
        frames = [bytes(frame) for frame in payload]
        if self._left > 0:
            self._held += frames
            self._left -= sum(map(len, frames))
            return
        with open(self._path, "ab") as handle:
            for frame in frames:
                handle.write(frame)
                self._ends.append(self._ends[-1] + len(frame))

    def read(self, start: int, stop: int) -> Payload:
        held, filed = self._held[start:stop], len(self._held)
        return held + self._filed(max(start, filed) - filed, stop - filed) if stop > filed else held

    def _filed(self, start: int, stop: int) -> list[bytes]:
        with open(self._path, "rb") as handle:
            handle.seek(self._ends[start])
            return [handle.read(self._ends[frame + 1] - self._ends[frame]) for frame in range(start, stop)]


class EpisodeWriter:
    """An episode that is not committed; `EpisodeStore.writer` gives one.

    `seed`, `success` and `notes` may be set until the `with` block ends; then `index` is the episode's number.

    Args:
        arrays: of the store it is for.
        staging: an empty folder for frames; without one they stay in memory, and `write` may be called once.
        task, seed, success, origin, notes: see `EpisodeStore.append`.
    """

    def __init__(
        self,
        arrays: Mapping[str, FrameArray],
        staging: Path | None,
        *,
        task: str,
        seed: int | None,
        success: bool | None,
        origin: str,
        notes: Mapping[str, Any] | None,
    ) -> None:
        self.task, self.seed, self.success, self.origin, self.notes = task, seed, success, origin, notes
        self.details()  # refuses wrong arguments before any frame is written
        self.index: int | None = None
        self.length = 0  # frames so far
        self._whole = True
        self._arrays, self._staging = arrays, staging
        self._specs = {key: key_array.spec for key, key_array in arrays.items()}
        self._frames = {key: self._place(number, spec) for number, (key, spec) in enumerate(self._specs.items())}
        self._digests = {key: sha256() for key in arrays}
        self._statistics = {key: EpisodeStatistics(key, spec) for key, spec in self._specs.items()}

    def _place(self, number: int, spec: KeySpec) -> _Frames:
        if self._staging is None:
            return _HeldFrames()
        path = self._staging / str(number)
        return _StagedPictures(path) if spec.codec == JPEG else _StagedArrays(path, spec)

    def write(self, block: Mapping[str, Frames], *, encoded: EncodedFrames | None = None) -> None:
        """Append frames: for every key of the store an array [T, ...] of its dtype and frame shape, T at least 1.

        Args:
            block: the frames; `PlanarFrames` become JPEGs, where the key has that codec, without a detour over RGB.
            encoded: for keys with the `jpeg` codec the files that the frames in `block` were decoded from, such as
                `read_encoded` of another store gives; they are kept as they are rather than compressed once more.
                A frame whose file is None is compressed.

        Raises:
            UsageError: the arrays are not what the store's keys say, or the episode is committed already.
            UserError: the disk fails.
        """
        if self.index is not None:
            raise UsageError(f"episode {self.index} is committed: open another writer for more frames")
        self._require_whole()
        arrays = {key: value if isinstance(value, PlanarFrames) else np.asarray(value) for key, value in block.items()}
        length = checked_arrays(arrays, self._specs, first=self.length)
        payloads = {
            key: self._with_files(key, np.asarray(arrays[key]), encoded[key])
            if encoded and key in encoded
            else self._arrays[key].codec.prepare(arrays[key])
            for key in self._specs
        }
        self._whole = False
        for key, payload in payloads.items():
            self._arrays[key].codec.update(self._digests[key], payload)
            frames = arrays[key]
            self._statistics[key].add(payload if isinstance(frames, PlanarFrames) else frames)
            with disk_errors(self._staging or Path(), "keeping frames of an unfinished episode"):
                self._frames[key].add(payload)
        self.length, self._whole = self.length + length, True

    def _with_files(self, key: str, frames: np.ndarray, files: Sequence[bytes | None]) -> list[bytes]:
        spec = self._specs[key]
        if spec.codec != JPEG or len(files) != len(frames):
            raise UsageError(
                f"encoded[{key!r}]: expected {len(frames)} JPEG files of a key with the codec jpeg, got {len(files)} "
                f"of a key with the codec {spec.codec}"
            )
        missing = [number for number, data in enumerate(files) if data is None]
        compressed = iter(self._arrays[key].codec.prepare(frames[missing]) if missing else ())
        for number, data in enumerate(files):
            try:
                if data is not None:
                    check_jpeg(data, spec.shape)
            except DamagedChunkError as error:
                raise UsageError(f"encoded[{key!r}], frame {self.length + number}: {error}") from error
        return [next(compressed) if data is None else data for data in files]

    def _require_whole(self) -> None:
        if not self._whole:
            raise UserError(
                "a block of this episode was not kept whole, see the earlier error: write the episode again"
            )

    def details(self) -> dict[str, Any]:
        """What an `EpisodeInfo` says besides frames.

        Raises:
            UsageError: `seed`, `success` or `notes` make no sense.
        """
        return {
            "task": str(self.task),
            "seed": checked_seed(self.seed),
            "success": checked_success(self.success),
            "origin": str(self.origin),
            "notes": checked_json("notes", self.notes or {}),
        }

    def commit(self, storage: Storage, index: StoreIndex) -> StoreIndex:
        """Make the frames an episode of the store behind `index`, a snapshot of now; for the holder of the lock.

        Raises:
            UserError: the store is damaged, or the disk fails; the store is as it was.
        """
        self._require_whole()
        start = index.num_frames
        hashes = {key: digest.hexdigest() for key, digest in self._digests.items()}
        info = EpisodeInfo(index.num_episodes, start, self.length, hashes=hashes, **self.details())
        for key, key_array in self._arrays.items():
            try:
                key_array.write(start, self.length, self._frames[key].read)
            except DamagedFramesError as error:
                raise damage_error(storage.location, key, error, index.episodes) from error
        for name, data in array_files(index.header, info.stop):
            storage.write(name, data)
        if not info.index:  # whoever created the store may have been killed before
            storage.write(GROUP_FILE, group_bytes())
        statistics = {key: value for key, counted in self._statistics.items() if (value := counted.result())}
        committed = index.committed(storage, info, statistics)
        self.index = info.index
        return committed
