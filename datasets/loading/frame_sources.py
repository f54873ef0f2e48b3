"""The sources of pre-training frames, each decoded once into a cache of uint8 [F, S, S, 3]."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.core.protocols import Reporter
from embodied.datasets.files.image_files import list_images, read_square
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.materialized import Materialized, materialize
from embodied.datasets.loading.npy_rows import ArraySpec, Rows
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead
from embodied.datasets.store.episode_store import EpisodeStore

_BLOCK = 64  # frames decoded between two commits: bounds memory and what a crash costs
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FrameCaches:
    """Where frames are decoded to: the folder of caches and its cap, their size, and who is shown progress."""

    root: Path
    size: int
    max_bytes: int | None
    reporter: Reporter


@dataclass(frozen=True)
class FramePart:
    """The frames of one source under one key; cheap to send to worker processes."""

    kind: str
    name: str
    frames: Rows
    valid: Rows | None  # uint8: 1 = the row holds a frame; None where all do
    fingerprint: str
    source: int  # which of the caller's sources it belongs to
    skipped: int
    held: ArrayCache | Materialized | None  # open, so that nobody deletes it

    def __len__(self) -> int:
        return len(self.frames) - self.skipped

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Frames uint8 [B, S, S, 3], numbered int64 [B] without the rows that hold none."""
        return self.frames.take(numbers if self.valid is None else self._sound[numbers])

    @cached_property
    def _sound(self) -> np.ndarray:
        assert self.valid is not None
        return np.flatnonzero(self.valid.maps()[0])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in {**self.__dict__, "held": None}.items() if key != "_sound"}


def folder_part(folder: Path, caches: FrameCaches, *, source: int, on_error: Literal["raise", "skip"]) -> FramePart:
    """The images of a folder.

    Raises:
        UserError: the folder holds no image that can be read, or with `on_error="raise"` one that cannot.
    """
    paths = list_images(folder)
    statuses = [(path, path.stat()) for path in paths]
    files = [[str(path.relative_to(folder)), status.st_size, status.st_mtime_ns] for path, status in statuses]
    size = caches.size
    cache = ArrayCache(
        caches.root,
        identity={"kind": "images", "size": size, "files": files},
        outputs={"frames": ArraySpec("uint8", (size, size, 3)), "valid": ArraySpec("uint8", ())},
        num_rows=len(paths),
        max_bytes=caches.max_bytes,
    )

    def read(path: Path) -> np.ndarray | None:
        try:
            return read_square(path, size)
        except UserError:
            if on_error == "raise":
                raise
            return None

    def decode(rows: Range) -> dict[str, np.ndarray]:
        found = list(read_ahead(read, paths[slice(*rows)], threads=cpu_threads()))
        blank = np.zeros((size, size, 3), np.uint8)
        frames = np.stack([blank if frame is None else frame for frame in found])
        return {"frames": frames, "valid": np.array([frame is not None for frame in found], np.uint8)}

    def blocks(ranges: Sequence[Range]) -> Blocks:
        return (decode(rows) for rows in ranges)

    cache.fill(blocks, block=_BLOCK, description=f"decode {folder.name}", reporter=caches.reporter)
    valid = cache.array("valid")
    skipped = len(paths) - int(valid.sum())
    if skipped:
        first = paths[int(np.argmin(valid))]
        if on_error == "raise":  # an earlier run skipped them: say again what is wrong with the first
            read_square(first, size)
        if skipped == len(paths):
            raise UserError(f"none of the {len(paths)} images in {folder} can be read")
        _log.warning(
            "skipped %d of %d images in %s that cannot be read, the first is %s", skipped, len(paths), folder, first
        )
    frames, fingerprint = cache.rows("frames"), cache.content_hash()
    some = cache.rows("valid") if skipped else None
    return FramePart("images", folder.name, frames, some, fingerprint, source, skipped, cache)


def store_parts(folder: Path, caches: FrameCaches, *, source: int) -> list[FramePart]:
    """The frames of an episode store, a part per image key.

    Raises:
        UserError: the store is damaged, empty, or holds no images.
    """
    store = EpisodeStore.open(folder)
    if not store.image_keys or not store.num_frames:
        raise UserError(f"the episode store {folder} holds no images: keys {sorted(store.keys)}, {len(store)} episodes")
    data = materialize(
        store,
        keys=store.image_keys,
        image_size=caches.size,
        cache_root=caches.root,
        max_bytes=caches.max_bytes,
        reporter=caches.reporter,
    )
    return [
        FramePart("store", f"{folder.name}/{key}", rows, None, data.content_hash(key), source, 0, data)
        for key, rows in data.rows.items()
    ]
