"""Arrays computed once, row by row, and read memory-mapped by everybody after that.

A cache is a folder named by the hash of what it is computed from, holding the `.npy` files of its outputs and
`progress.json`: how many rows are done, and a running hash of them. Rows are written, brought to the disk, and only
then counted, so a killed process costs the rows since the last count and the finished files do not depend on it.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Self

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json, write_text
from embodied.core.protocols import Reporter
from embodied.datasets.loading.cache_plan import CachePlan
from embodied.datasets.loading.cache_space import PROGRESS, lock_path, make_room
from embodied.datasets.loading.npy_rows import (
    EMPTY_HASH,
    ArraySpec,
    Rows,
    chained_hash,
    check_outputs,
    checked_count,
    converted,
    map_file,
)
from embodied.datasets.storage.disk import FileLock, disk_errors, require_free

_log = logging.getLogger(__name__)

Range = tuple[int, int]
Blocks = Generator[Mapping[str, np.ndarray], None, None]


class ArrayCache:
    """One cache folder, held: exclusively while rows are missing, shared with other readers once it is complete.

    Args:
        root, identity, outputs, num_rows, file_bytes: see `CachePlan`.
        wait: while another process builds the same cache, wait for it; else raise.
        max_bytes: of all caches under `root`; those that nobody has open are deleted to make room for a new one, the
            least recently used first.
        finite: refuse rows that hold nan or infinity.

    Raises:
        UsageError: an argument makes no sense.
        UserError: the disk or the cap is too small, or the cache is in use and `wait` is off.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        identity: Mapping[str, Any],
        outputs: Mapping[str, ArraySpec],
        num_rows: int,
        file_bytes: int | None = None,
        wait: bool = True,
        max_bytes: int | None = None,
        finite: bool = True,
    ) -> None:
        check_outputs(outputs, num_rows)
        self.plan = CachePlan(Path(root), dict(identity), dict(outputs), num_rows, file_bytes)
        self.outputs, self.num_rows, self.path = self.plan.outputs, num_rows, self.plan.path
        self.key = hash_json(self.plan.record)
        self._max_bytes, self._finite = max_bytes, finite
        self._lock = FileLock(lock_path(self.path))
        self._rows = self.plan.rows()
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
        if not self._lock.held or self.complete:
            raise UsageError(f"the cache {self.path} is {'complete' if self.complete else 'closed'}")
        if start != self.done:
            raise UsageError(f"start must be {self.done}, the number of rows done, got {start}")
        count = checked_count(rows, self.outputs, most=self.num_rows - start)
        blocks = {name: self._converted(name, array) for name, array in rows.items()}
        with disk_errors(self.path, f"writing rows {start} to {start + count}"):
            for name, block in blocks.items():
                self._rows[name].write(start, block)
            self._hashes = {name: chained_hash(self._hashes[name], block) for name, block in blocks.items()}
            self.done += count
            self._save_progress()
            if self.complete:
                self._share()

    def fill(
        self, blocks_of: Callable[[Sequence[Range]], Blocks], *, block: int, description: str, reporter: Reporter
    ) -> None:
        """Write the rows that are missing: `blocks_of(ranges)` gives those of each range, in order.

        Blocks end at multiples of `block` wherever they begin: an encoder's results may depend on the size of its
        batches, and must not depend on interruptions. When anything fails, the cache is closed, for others to go on.
        """
        if self.complete:
            return
        stops = [*range((self.done // block + 1) * block, self.num_rows, block), self.num_rows]
        ranges = list(zip([self.done, *stops[:-1]], stops, strict=True))
        missing, ends = range(self.done, self.num_rows), set(stops)
        try:
            with closing(blocks_of(ranges)) as blocks:
                for row in reporter.track(missing, total=self.num_rows, description=description, done=self.done):
                    if row + 1 in ends:
                        self.write(self.done, next(blocks))
        except BaseException:
            self.close()
            raise

    def rows(self, name: str) -> Rows:
        """The rows of an output, [N, ...]; the cache must be complete."""
        if name not in self.outputs:
            raise UsageError(f"no output {name!r} in the cache {self.path}: it has {', '.join(self.outputs)}")
        if not self.complete:
            raise UsageError(f"the cache {self.path} holds {self.done} of {self.num_rows} rows: finish it first")
        return self._rows[name]

    def array(self, name: str) -> np.memmap:
        """The rows of an output that is one file as they are stored, [N, ...], read-only; see `rows`."""
        paths = self.rows(name).paths
        if len(paths) > 1:
            raise UsageError(f"output {name!r} of the cache {self.path} lies in {len(paths)} files: use rows()")
        return map_file(paths[0], self.outputs[name], self.num_rows)

    def content_hash(self) -> str:
        """SHA-256 (hex) of the rows done."""
        return hash_json({"identity": [self.plan.record["outputs"], self.done], "hashes": self._hashes})

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
        self._rows = self.plan.rows()  # with no maps of files that others have replaced since
        self.done, self._hashes, self._damaged = 0, dict.fromkeys(self.outputs, EMPTY_HASH), False
        if not (self.path / PROGRESS).is_file():
            return False
        try:
            progress = json.loads((self.path / PROGRESS).read_bytes())
            done, hashes, stamps = int(progress["done"]), dict(progress["hashes"]), dict(progress["stamps"])
            sound = stamps == self._stamps() or all(
                rows.hash(done) == hashes[rows.name] for rows in self._rows.values()
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
        for rows in self._rows.values():
            rows.maps()
        os.utime(self.path / PROGRESS)  # "last used", for prune
        self._lock.acquire(shared=True)

    def _allocate(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._rows = self.plan.rows()
        room = FileLock(lock_path(self.path).parent / "room")
        room.acquire()  # or two processes would count the same room
        try:
            if self._max_bytes is not None:
                make_room(self.path.parent, self.plan.size_bytes, max_bytes=self._max_bytes)
            require_free(self.path, self.plan.size_bytes + (1 << 20))
            self.path.mkdir(parents=True)
            for rows in self._rows.values():
                rows.allocate()
            self._save_progress()
        except BaseException:
            shutil.rmtree(self.path, ignore_errors=True)
            raise
        finally:
            room.release()

    def _stamps(self) -> dict[str, list[int]]:
        return {name: stamp for rows in self._rows.values() for name, stamp in rows.stamps().items()}

    def _save_progress(self) -> None:
        state = {"done": self.done, "hashes": self._hashes, "stamps": self._stamps(), **self.plan.record}
        write_text(self.path / PROGRESS, json.dumps(state))

    def _converted(self, name: str, array: np.ndarray) -> np.ndarray:
        return converted(name, array, self.outputs[name], finite=self._finite)
