"""Files of rows in NumPy's `.npy` format, with room for all rows taken at the start and a running hash of them.

Rows that would make too large a file lie in several, one after the other; `Rows` reads them as one array.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.datasets.loading.bfloat16 import BFLOAT16, from_bfloat16, to_bfloat16

EMPTY_HASH = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class ArraySpec:
    """What a row is: a NumPy dtype name, or `"bfloat16"`, and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def stored(self) -> np.dtype[Any]:
        """Of the files: bfloat16 lies in them as the upper half of float32, in uint16."""
        return np.dtype("uint16" if self.dtype == BFLOAT16 else self.dtype)

    @property
    def row_bytes(self) -> int:
        return self.stored.itemsize * prod(self.shape)


def check_outputs(outputs: Mapping[str, ArraySpec], num_rows: int) -> None:
    """Raise `UsageError` unless there are outputs, names that can be files, and rows."""
    if not outputs or num_rows < 1:
        raise UsageError(f"a cache needs outputs and rows, got {sorted(outputs)} and {num_rows} rows")
    for name in outputs:
        if not name or "/" in name or name.startswith("."):
            raise UsageError(f"outputs: {name!r} cannot be a file name")


def checked_count(rows: Mapping[str, np.ndarray], outputs: Mapping[str, ArraySpec], *, most: int) -> int:
    """How many rows of every output there are, after checking that there are at least 1 and at most `most`."""
    if rows.keys() != outputs.keys():
        raise UsageError(f"rows: expected {sorted(outputs)}, got {sorted(rows)}")
    count = len(next(iter(rows.values())))
    for name, array in rows.items():
        expected = (count, *outputs[name].shape)
        if array.shape != expected or not 0 < count <= most:
            raise UsageError(f'rows["{name}"]: expected {expected} with 1 to {most} rows, got {array.shape}')
    return count


class Rows:
    """The rows [N, ...] of one output, read-only and memory-mapped when first needed; travels to workers as paths.

    Args:
        folder: holds `<name>.npy`, or `<name>.00000.npy` and so on where there are several files.
        name: of the output.
        spec: what a row is.
        num_rows: N.
        rows_per_file: of every file but the last.
    """

    def __init__(self, folder: Path, name: str, spec: ArraySpec, *, num_rows: int, rows_per_file: int) -> None:
        self.folder, self.name, self.spec = folder, name, spec
        self.num_rows, self.rows_per_file = num_rows, rows_per_file
        self._maps: list[np.ndarray] | None = None

    def __len__(self) -> int:
        return self.num_rows

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.num_rows, *self.spec.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of what is read: bfloat16 comes as float32."""
        return np.dtype("float32" if self.spec.dtype == BFLOAT16 else self.spec.dtype)

    @property
    def paths(self) -> list[Path]:
        count = -(-self.num_rows // self.rows_per_file)
        if count == 1:
            return [self.folder / f"{self.name}.npy"]
        return [self.folder / f"{self.name}.{number:05d}.npy" for number in range(count)]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """The rows at indices int64 of any shape [...], in memory of their own, [..., *row].

        Raises:
            IndexError: an index is not in 0 to N - 1.
        """
        if indices.size and (indices.min() < 0 or indices.max() >= self.num_rows):
            raise IndexError(f"rows must be in 0 to {self.num_rows - 1}, got {indices.min()} to {indices.max()}")
        return self.gather(indices)

    def gather(self, indices: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """As `take`, of indices that are known to be in range: the hot path.

        Args:
            indices: int64 [...].
            out: memory for the result, [..., *row]; taken where it fits, in shape, dtype and order, else left alone.
        """
        maps, shape = self.maps(), (*indices.shape, *self.spec.shape)
        stored = np.dtype(self.spec.stored)
        if out is None or out.shape != shape or out.dtype != stored or not out.flags.c_contiguous:
            out = np.empty(shape, stored)
        if len(maps) == 1:
            return self._decoded(maps[0].take(indices, axis=0, mode="clip", out=out))  # the default mode is slower
        flat = indices.ravel()
        found = out.reshape(len(flat), *self.spec.shape)
        files, places = np.divmod(flat, self.rows_per_file)
        # A copy per stretch of consecutive rows, about one per window: a gather per file would copy everything twice.
        breaks = np.flatnonzero((np.diff(flat) != 1) | (np.diff(files) != 0)) + 1
        for first, last in pairwise([0, *breaks.tolist(), len(flat)] if len(flat) else []):
            found[first:last] = maps[files[first]][places[first] : places[first] + last - first]
        return self._decoded(found).reshape(*indices.shape, *self.spec.shape)

    def __getitem__(self, index: int | slice | np.ndarray) -> np.ndarray:
        """As of an array; a slice takes steps of 1 only, and everything comes in memory of its own."""
        if isinstance(index, slice):
            start, stop, step = index.indices(self.num_rows)
            if step != 1:
                raise UsageError(f"rows: expected a slice without step, got {index}")
            return self._decoded(self.read(start, max(start, stop)))
        array = np.asarray(index)
        return self.take(np.where(array < 0, array + self.num_rows, array))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` as they are stored, in memory of their own."""
        parts = [self.maps()[file][first:last] for file, first, last in self.split(start, stop)]
        return np.concatenate([np.empty((0, *self.spec.shape), self.spec.stored), *parts])

    def split(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The rows `start` to `stop` as (file, first row in it, last row in it + 1)."""
        while start < stop:
            file, first = divmod(start, self.rows_per_file)
            last = min(self.rows_per_file, first + stop - start)
            yield file, first, last
            start += last - first

    def maps(self) -> list[np.ndarray]:
        """One read-only memory map per file; `ValueError` when they are not what `spec` says."""
        if self._maps is None:
            files = zip(self.paths, self._counts(), strict=True)
            # As plain arrays: memmap's own indexing is slower.
            self._maps = [np.asarray(map_file(path, self.spec, rows)) for path, rows in files]
        return self._maps

    def allocate(self) -> None:
        """Files with room for all rows, of zeros; `OSError` when the disk has none."""
        for path, rows in zip(self.paths, self._counts(), strict=True):
            _allocate(path, self.spec, rows)

    def write(self, start: int, block: np.ndarray) -> None:
        """Put `block` [B, ...] where row `start` begins, and on the disk."""
        paths, counts, done = self.paths, self._counts(), 0
        for file, first, last in self.split(start, start + len(block)):
            part = block[done : done + last - first]
            done += last - first
            with open(paths[file], "r+b") as handle:
                handle.seek(paths[file].stat().st_size - (counts[file] - first) * self.spec.row_bytes)
                handle.write(part.data.cast("B"))
                handle.flush()
                os.fdatasync(handle.fileno())

    def stamps(self) -> dict[str, list[int]]:
        """Size and time of last change (ns) of each file, by its name without suffix."""
        found = {path.stem: path.stat() for path in self.paths}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}

    def hash(self, stop: int) -> str:
        """`chained_hash` of the rows before `stop`."""
        value = EMPTY_HASH
        for file, first, last in self.split(0, stop):
            value = chained_hash(value, self.maps()[file][first:last])
        return value

    def _counts(self) -> list[int]:
        full, rest = divmod(self.num_rows, self.rows_per_file)
        return [self.rows_per_file] * full + [rest] * (rest > 0)

    def _decoded(self, stored: np.ndarray) -> np.ndarray:
        return from_bfloat16(stored) if self.spec.dtype == BFLOAT16 else stored

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would travel to worker processes as a copy of all rows: they map the files themselves.
        return {**self.__dict__, "_maps": None}


def _allocate(path: Path, spec: ArraySpec, num_rows: int) -> None:
    header = {"descr": np.lib.format.dtype_to_descr(spec.stored), "fortran_order": False}
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {**header, "shape": (num_rows, *spec.shape)})
        handle.flush()
        # Taken now, a full disk is an error here rather than a dead process later.
        os.posix_fallocate(handle.fileno(), 0, handle.tell() + num_rows * spec.row_bytes)


def map_file(path: Path, spec: ArraySpec, num_rows: int) -> np.memmap:
    """The file's rows [N, ...], memory-mapped, read-only; `ValueError` when they are not what `spec` says."""
    mapped = np.lib.format.open_memmap(path, mode="r")
    if mapped.shape != (num_rows, *spec.shape) or mapped.dtype != spec.stored:
        raise ValueError(f"{path} holds {mapped.dtype} {mapped.shape}")
    return mapped


def converted(name: str, array: np.ndarray, spec: ArraySpec, *, finite: bool) -> np.ndarray:
    """The rows of output `name` as they are stored, contiguous.

    Raises:
        UserError: with `finite`, a value is not a number, or does not fit.
    """
    with np.errstate(over="ignore"):
        wanted = np.dtype("float32") if spec.dtype == BFLOAT16 else spec.stored
        block = np.ascontiguousarray(array, dtype=wanted).reshape(array.shape)
    if finite and block.dtype.kind == "f" and not np.isfinite(block).all():
        raise UserError(
            f"output {name!r} has nan, infinity or values too large for {spec.dtype}: check the encoder, or cache in a "
            "wider dtype"
        )
    return to_bfloat16(block) if spec.dtype == BFLOAT16 else block


def chained_hash(before: str, rows: np.ndarray) -> str:
    """SHA-256 (hex) of the hash `before` and the rows, one by one: the same however many are hashed at a time."""
    state = bytes.fromhex(before)
    flat = np.ascontiguousarray(rows).reshape(len(rows), prod(rows.shape[1:])).view(np.uint8)
    for row in flat:
        hashed = hashlib.sha256(state)
        hashed.update(row.data)
        state = hashed.digest()
    return state.hex()
