"""Arrays computed once, row by row, and read memory-mapped by everybody after that.

A cache is a folder named by the hash of what it is computed from, holding one `.npy` file per output and
`progress.json`: how many rows are done, and a running hash of them. Rows are written, brought to the disk, and only
then counted, so a killed process costs the rows since the last count and the finished files do not depend on it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json, write_text
from embodied.core.protocols import Reporter
from embodied.datasets.disk import FileLock, disk_errors, require_free
from embodied.datasets.npy_rows import (
    EMPTY_HASH,
    ArraySpec,
    allocate,
    chained_hash,
    check_outputs,
    converted,
    map_rows,
    write_rows,
)

FORMAT = 1
PROGRESS = "progress.json"
_log = logging.getLogger(__name__)


class ArrayCache:
    """One cache folder, held: exclusively while rows are missing, shared with other readers once it is complete.

    Args:
        root: the folder of all caches.
        identity: JSON-able; everything the rows depend on.
        outputs: what a row of each output is.
        num_rows: N, at least 1.
        wait: while another process builds the same cache, wait for it; else raise.

    Raises:
        UsageError: an argument makes no sense.
        UserError: the disk is too full, or the cache is in use and `wait` is off.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        identity: Mapping[str, Any],
        outputs: Mapping[str, ArraySpec],
        num_rows: int,
        wait: bool = True,
    ) -> None:
        check_outputs(outputs, num_rows)
        self.outputs = dict(outputs)
        self.num_rows = num_rows
        self._identity = {
            "format": FORMAT,
            "identity": dict(identity),
            "outputs": {name: [spec.dtype, list(spec.shape)] for name, spec in outputs.items()},
            "rows": num_rows,
        }
        self.key = hash_json(self._identity)
        self.path = Path(root) / self.key[:32]
        self._lock = FileLock(lock_path(self.path))
        self._arrays: dict[str, np.memmap] = {}
        self._hashes = dict.fromkeys(self.outputs, EMPTY_HASH)
        self.done, self._damaged = 0, False
        try:
            with disk_errors(self.path, "opening the cache"):
                self._enter(wait)
        except BaseException:
            self.close()
            raise

    @property
    def complete(self) -> bool:
        return self.done == self.num_rows

    def write(self, start: int, rows: Mapping[str, np.ndarray]) -> None:
        """Add the rows [B, ...] of every output that follow those done.

        Args:
            start: the number of the first one, which must be `done`.
            rows: one array per output, converted to its dtype.

        Raises:
            UsageError: the rows are not what comes next.
            UserError: a value does not fit the dtype, or the disk fails.
        """
        count = self._check_rows(start, rows)
        blocks = {name: converted(name, array, self.outputs[name]) for name, array in rows.items()}
        with disk_errors(self.path, f"writing rows {start} to {start + count}"):
            for name, block in blocks.items():
                write_rows(self._file(name), self.num_rows - start, block)
            self._hashes = {name: chained_hash(self._hashes[name], block) for name, block in blocks.items()}
            self.done += count
            self._save_progress()
            if self.complete:
                self._share()

    def fill(
        self,
        compute: Callable[[int, int], Mapping[str, np.ndarray]],
        *,
        block: int,
        description: str,
        reporter: Reporter,
    ) -> None:
        """Write the rows that are missing: `compute(start, stop)` gives those of one block.

        Blocks end at multiples of `block` wherever they begin: an encoder's results may depend on the size of its
        batches, and must not depend on interruptions. When anything fails, the cache is closed, for others to go on.
        """
        if self.complete:
            return
        rows = range(self.done, self.num_rows)
        try:
            for row in reporter.track(rows, total=self.num_rows, description=description, done=self.done):
                if (row + 1) % block == 0 or row + 1 == self.num_rows:
                    self.write(self.done, compute(self.done, row + 1))
        except BaseException:
            self.close()
            raise

    def array(self, name: str) -> np.memmap:
        """The rows of an output, [N, ...], read-only; the cache must be complete."""
        if name not in self.outputs:
            raise UsageError(f"no output {name!r} in the cache {self.path}: it has {', '.join(self.outputs)}")
        if not self.complete:
            raise UsageError(f"the cache {self.path} holds {self.done} of {self.num_rows} rows: finish it first")
        return self._arrays[name]

    def content_hash(self) -> str:
        """SHA-256 (hex) of the rows done."""
        return hash_json({"identity": [self._identity["outputs"], self.done], "hashes": self._hashes})

    def close(self) -> None:
        """Let others build or delete the cache; arrays that were handed out stay readable."""
        self._lock.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _enter(self, wait: bool) -> None:
        # Shared first, so that any number of readers get in; whoever finds rows missing comes back alone.
        self._acquire(shared=True, wait=wait)
        if self._load():
            return self._share()
        self._lock.release()
        # Others may be reading a damaged cache, for as long as they please: no waiting for them.
        self._acquire(shared=False, wait=wait and not self._damaged)
        for leftover in self.path.glob(f".{PROGRESS}.*.tmp"):  # what a killed builder was in the middle of
            leftover.unlink()
        if self._load():
            return self._share()
        if self.done == 0:
            self._allocate()

    def _acquire(self, *, shared: bool, wait: bool) -> None:
        if self._lock.acquire(shared=shared, wait=False):
            return
        if not wait:
            raise UserError(f"{self._lock.holder()} uses the cache {self.path}: wait until it is done, or stop it")
        _log.info("waiting for %s, which builds the cache %s", self._lock.holder(), self.path)
        self._lock.acquire(shared=shared)

    def _load(self) -> bool:
        """Take over the progress on disk, if it is sound; True when the cache is complete."""
        self.done, self._hashes, self._damaged = 0, dict.fromkeys(self.outputs, EMPTY_HASH), False
        if not (self.path / PROGRESS).is_file():
            return False
        try:
            progress = json.loads((self.path / PROGRESS).read_bytes())
            done, hashes, stamps = int(progress["done"]), dict(progress["hashes"]), dict(progress["stamps"])
            sound = stamps == self._stamps() or all(
                chained_hash(EMPTY_HASH, self._map(name)[:done]) == hashes[name] for name in self.outputs
            )
        except (ValueError, KeyError, TypeError, OSError) as error:
            _log.warning("the cache %s is damaged (%s): computing it again", self.path, error)
            self._damaged = True
            return False
        if not sound or not 0 <= done <= self.num_rows:
            _log.warning("the cache %s is damaged (its rows are not what was written): computing it again", self.path)
            self._damaged = True
            return False
        self.done, self._hashes = done, hashes
        return self.complete

    def _share(self) -> None:
        # Mapped before the lock is shared: a cache that is deleted in between stays readable.
        self._arrays = {name: self._map(name) for name in self.outputs}
        os.utime(self.path / PROGRESS)  # "last used", for prune
        self._lock.acquire(shared=True)

    def _map(self, name: str) -> np.memmap:
        return map_rows(self._file(name), self.outputs[name], self.num_rows)

    def _file(self, name: str) -> Path:
        return self.path / f"{name}.npy"

    def _allocate(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        require_free(self.path, self.num_rows * sum(spec.row_bytes for spec in self.outputs.values()) + (1 << 20))
        self.path.mkdir(parents=True)
        for name, spec in self.outputs.items():
            allocate(self._file(name), spec, self.num_rows)
        self._save_progress()

    def _stamps(self) -> dict[str, list[int]]:
        found = {name: self._file(name).stat() for name in self.outputs}
        return {name: [status.st_size, status.st_mtime_ns] for name, status in found.items()}

    def _save_progress(self) -> None:
        state = {"done": self.done, "hashes": self._hashes, "stamps": self._stamps(), **self._identity}
        write_text(self.path / PROGRESS, json.dumps(state))

    def _check_rows(self, start: int, rows: Mapping[str, np.ndarray]) -> int:
        if not self._lock.held or self.complete:
            raise UsageError(f"the cache {self.path} is {'complete' if self.complete else 'closed'}")
        if rows.keys() != self.outputs.keys():
            raise UsageError(f"rows: expected {sorted(self.outputs)}, got {sorted(rows)}")
        if start != self.done:
            raise UsageError(f"start must be {self.done}, the number of rows done, got {start}")
        count = len(next(iter(rows.values())))
        for name, array in rows.items():
            expected = (count, *self.outputs[name].shape)
            if array.shape != expected or not 0 < count <= self.num_rows - start:
                raise UsageError(
                    f'rows["{name}"]: expected {expected} with 1 to {self.num_rows - start} rows, got {array.shape}'
                )
        return count


def lock_path(folder: Path) -> Path:
    """Outside the cache folder, so that deleting a cache does not split its lock in two."""
    return folder.parent / ".locks" / folder.name
