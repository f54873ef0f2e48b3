"""One key of an episode store: a zarr array [F, ...] with the frames of all episodes one after the other.

Chunks of about 1 MiB are compressed (zstd, lossless) and checksummed (crc32c) one by one; shards of up to 32 MiB put
them into few files. Measured with 128x128x3 frames: chunks of 16 read at 25,000 frames/s in order, of 4 at 8,000.
"""

from __future__ import annotations

import hashlib
import os
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import Crc32cCodec, ZstdCodec

from embodied.core.errors import UserError
from embodied.datasets.episode_index import KeySpec

CHUNK_BYTES = 1 << 20
SHARD_BYTES = 32 << 20
MOST_FRAMES_PER_CHUNK = 1024
MOST_CHUNKS_PER_SHARD = 64
ZSTD_LEVEL = 3  # levels above cost more time than the few per cent they save

# What zarr raises on bytes that do not decode: crc32c and the shard index ValueError, zstd RuntimeError.
_DECODE_ERRORS = (ValueError, RuntimeError)


def content_hash(array: np.ndarray) -> str:
    """SHA-256 (hex) of the values in C order."""
    return hashlib.sha256(np.ascontiguousarray(array).data.cast("B")).hexdigest()


class DamagedFramesError(Exception):
    """Frames `start` to `stop` do not decode, because of the file at `path`."""

    def __init__(self, path: Path, start: int, stop: int) -> None:
        super().__init__(f"{path}, frames {start} to {stop}")
        self.path, self.start, self.stop = path, start, stop


def layout(spec: KeySpec) -> tuple[int, int]:
    """Frames per chunk and frames per shard, both powers of two."""
    frame = max(1, np.dtype(spec.dtype).itemsize * prod(spec.shape))
    chunk = min(_power_of_two(CHUNK_BYTES // frame), MOST_FRAMES_PER_CHUNK)
    return chunk, chunk * min(_power_of_two(SHARD_BYTES // (chunk * frame)), MOST_CHUNKS_PER_SHARD)


def _power_of_two(limit: int) -> int:
    return 1 << max(0, limit.bit_length() - 1)


def create_array(group: zarr.Group, key: str, spec: KeySpec) -> None:
    """An empty array for `key`."""
    chunk, shard = layout(spec)
    group.create_array(
        key,
        shape=(0, *spec.shape),
        chunks=(chunk, *spec.shape),
        shards=(shard, *spec.shape),
        dtype=spec.dtype,
        compressors=[ZstdCodec(level=ZSTD_LEVEL), Crc32cCodec()],
    )


class FrameArray:
    """Reads and extends the array of one key; knows which of its files hold which frames."""

    def __init__(self, folder: Path, key: str, spec: KeySpec, *, frames: int, writable: bool) -> None:
        self.folder = folder / key
        self.spec = spec
        try:
            stored: Any = zarr.open_array(str(self.folder), mode="r+" if writable else "r", zarr_format=3)
            # Black frames are data: without write_empty_chunks they would look like a chunk that was lost.
            opened = stored.with_config({"order": "C", "write_empty_chunks": True})
            self.chunk, self.shard = opened.chunks[0], opened.shards[0]
        except (*_DECODE_ERRORS, KeyError, TypeError, FileNotFoundError) as error:
            raise UserError(
                f"{self.folder / 'zarr.json'} is missing or damaged: restore the store from a copy"
            ) from error
        if opened.dtype != np.dtype(spec.dtype) or opened.shape[1:] != spec.shape:
            found = KeySpec(str(opened.dtype), opened.shape[1:]).describe(opened.shape[0])
            raise UserError(f"{self.folder} holds {found}, but the index says {spec.describe()}")
        if opened.shape[0] < frames:
            raise UserError(f"{self.folder} holds {opened.shape[0]} frames, but the index names {frames}")
        self._array = opened

    def paths(self, start: int, stop: int) -> list[Path]:
        """The files that hold frames `start` to `stop`."""
        rest = ["0"] * len(self.spec.shape)
        shards = range(start // self.shard, (stop - 1) // self.shard + 1) if stop > start else ()
        return [self.folder.joinpath("c", str(shard), *rest) for shard in shards]

    def write(self, start: int, frames: np.ndarray) -> None:
        """Make the array end with `frames` [T, ...] at `start`; what lay beyond `start` is gone.

        Raises:
            DamagedFramesError: the file that the new frames share with older ones is damaged.
        """
        stop = start + len(frames)
        if start % self.shard:
            self._require(start - 1, start)
        if self._array.shape[0] > start:  # what an append that was killed left
            self._array.resize((start, *self.spec.shape))
        self._array.resize((stop, *self.spec.shape))
        try:
            self._array[start:stop] = frames
        except _DECODE_ERRORS as error:
            raise DamagedFramesError(self.paths(start, stop)[0], max(0, start - 1), start) from error

    def sync(self, start: int, stop: int) -> None:
        """Bring frames `start` to `stop` and the array's metadata to the disk."""
        files = [self.folder / "zarr.json", *self.paths(start, stop)]
        for path in dict.fromkeys([*files, *(path.parent for path in files)]):
            descriptor = os.open(path, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Frames `start` to `stop`, [stop - start, ...], in memory of their own.

        Raises:
            DamagedFramesError: with the first chunk that does not decode.
        """
        self._require(start, stop)
        try:
            return np.asarray(self._array[start:stop])
        except _DECODE_ERRORS as error:
            raise self._locate(start, stop) from error

    def _require(self, start: int, stop: int) -> None:
        # zarr takes a missing or empty file for one full of zeros.
        for path in self.paths(start, stop):
            if not path.is_file() or path.stat().st_size == 0:
                shard = int(path.relative_to(self.folder).parts[1])
                first = max(start, shard * self.shard)
                raise DamagedFramesError(path, first, min(stop, (shard + 1) * self.shard))

    def _locate(self, start: int, stop: int) -> DamagedFramesError:
        first = start
        while first < stop:
            last = min(stop, (first // self.chunk + 1) * self.chunk)
            try:
                self._array[first:last]
            except _DECODE_ERRORS:
                return DamagedFramesError(self.paths(first, last)[0], first, last)
            first = last
        return DamagedFramesError(self.paths(start, stop)[0], start, stop)
