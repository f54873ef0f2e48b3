"""Files of rows in NumPy's `.npy` format, with room for all rows taken at the start and a running hash of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from embodied.core.errors import UsageError, UserError

EMPTY_HASH = hashlib.sha256().hexdigest()


@dataclass(frozen=True)
class ArraySpec:
    """What a row is: a NumPy dtype name and a shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return np.dtype(self.dtype).itemsize * prod(self.shape)


def check_outputs(outputs: Mapping[str, ArraySpec], num_rows: int) -> None:
    """Raise `UsageError` unless there are outputs, names that can be files, and rows."""
    if not outputs or num_rows < 1:
        raise UsageError(f"a cache needs outputs and rows, got {sorted(outputs)} and {num_rows} rows")
    for name in outputs:
        if not name or "/" in name or name.startswith("."):
            raise UsageError(f"outputs: {name!r} cannot be a file name")


def allocate(path: Path, spec: ArraySpec, num_rows: int) -> None:
    """A file with room for `num_rows` rows of zeros; `OSError` when the disk has none."""
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(spec.dtype)), "fortran_order": False}
    with open(path, "wb") as handle:
        np.lib.format.write_array_header_1_0(handle, {**header, "shape": (num_rows, *spec.shape)})
        handle.flush()
        # Taken now, a full disk is an error here rather than a dead process later.
        os.posix_fallocate(handle.fileno(), 0, handle.tell() + num_rows * spec.row_bytes)


def write_rows(path: Path, rows_from_end: int, block: np.ndarray) -> None:
    """Put `block` [B, ...] where the last `rows_from_end` rows begin, and on the disk."""
    with open(path, "r+b") as handle:
        handle.seek(path.stat().st_size - rows_from_end * (block.nbytes // len(block)))
        handle.write(block.data.cast("B"))
        handle.flush()
        os.fdatasync(handle.fileno())


def map_rows(path: Path, spec: ArraySpec, num_rows: int) -> np.memmap:
    """The file's rows [N, ...], memory-mapped, read-only; `ValueError` when they are not what `spec` says."""
    mapped = np.lib.format.open_memmap(path, mode="r")
    if mapped.shape != (num_rows, *spec.shape) or mapped.dtype != np.dtype(spec.dtype):
        raise ValueError(f"{path} holds {mapped.dtype} {mapped.shape}")
    return mapped


def converted(name: str, array: np.ndarray, spec: ArraySpec) -> np.ndarray:
    """The rows of output `name` in its dtype, contiguous.

    Raises:
        UserError: a value is not a number, or does not fit.
    """
    with np.errstate(over="ignore"):
        block = np.ascontiguousarray(array, dtype=spec.dtype)
    if block.dtype.kind == "f" and not np.isfinite(block).all():
        raise UserError(
            f"output {name!r} has nan, infinity or values too large for {spec.dtype}: check the encoder, or cache in a "
            "wider dtype"
        )
    return block


def chained_hash(before: str, rows: np.ndarray) -> str:
    """SHA-256 (hex) of the hash `before` and the rows, one by one: the same however many are hashed at a time."""
    state = bytes.fromhex(before)
    for row in rows:
        state = hashlib.sha256(state + np.ascontiguousarray(row).tobytes()).digest()
    return state.hex()
