"""The sources of pre-training frames, each decoded once into a cache of uint8 [F, S, S, 3]."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from embodied.core.errors import UserError
from embodied.core.protocols import Reporter
from embodied.datasets.array_cache import ArrayCache
from embodied.datasets.episode_store import EpisodeStore
from embodied.datasets.image_files import list_images, read_square, square
from embodied.datasets.npy_rows import ArraySpec

_BLOCK = 64  # frames decoded between two commits: bounds memory and what a crash costs
_log = logging.getLogger(__name__)


@dataclass
class FramePart:
    """The frames of one source under one key: rows of a memory-mapped file."""

    kind: str
    name: str
    file: Path
    rows: np.ndarray  # int64: the rows that hold a frame, without skipped files
    fingerprint: str
    source: int  # which of the caller's sources it belongs to
    skipped: int
    cache: ArrayCache | None  # held open, so that nobody prunes it
    frames: np.ndarray | None = None

    def mapped(self) -> np.ndarray:
        if self.frames is None:
            self.frames = np.load(self.file, mmap_mode="r")
        return self.frames

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would travel to worker processes as a copy of all frames: they map the file themselves.
        return {**self.__dict__, "cache": None, "frames": None}


def folder_part(
    folder: Path, *, size: int, root: Path, source: int, on_error: Literal["raise", "skip"], reporter: Reporter
) -> FramePart:
    """The images of a folder.

    Raises:
        UserError: the folder holds no image that can be read, or with `on_error="raise"` one that cannot.
    """
    paths = list_images(folder)
    statuses = [(path, path.stat()) for path in paths]
    files = [[str(path.relative_to(folder)), status.st_size, status.st_mtime_ns] for path, status in statuses]
    cache = _open_cache(root, {"kind": "images", "size": size, "files": files}, size, len(paths))

    def decode(start: int, stop: int) -> dict[str, np.ndarray]:
        frames = np.zeros((stop - start, size, size, 3), np.uint8)
        valid = np.zeros(stop - start, np.uint8)
        for row, path in enumerate(paths[start:stop]):
            try:
                frames[row], valid[row] = read_square(path, size), 1
            except UserError:
                if on_error == "raise":
                    raise
        return {"frames": frames, "valid": valid}

    cache.fill(decode, block=_BLOCK, description=f"decode {folder.name}", reporter=reporter)
    rows = np.flatnonzero(cache.array("valid"))
    skipped = len(paths) - len(rows)
    if skipped:
        first = paths[int(np.argmin(cache.array("valid")))]
        if on_error == "raise":  # an earlier run skipped them: say again what is wrong with the first
            read_square(first, size)
        if not len(rows):
            raise UserError(f"none of the {len(paths)} images in {folder} can be read")
        _log.warning(
            "skipped %d of %d images in %s that cannot be read, the first is %s", skipped, len(paths), folder, first
        )
    return _part(cache, "images", folder.name, rows, source=source)


def store_parts(folder: Path, *, size: int, root: Path, source: int, reporter: Reporter) -> list[FramePart]:
    """The frames of an episode store, a part per image key.

    Raises:
        UserError: the store is damaged, empty, or holds no images.
    """
    store = EpisodeStore.open(folder)
    if not store.image_keys or not store.num_frames:
        raise UserError(f"the episode store {folder} holds no images: keys {sorted(store.keys)}, {len(store)} episodes")
    parts = []
    for key in store.image_keys:
        identity = {"kind": "store", "size": size, "store": store.fingerprint(), "key": key}
        cache = _open_cache(root, identity, size, store.num_frames)

        def decode(start: int, stop: int, *, key: str = key) -> dict[str, np.ndarray]:
            frames = np.stack([square(Image.fromarray(frame), size) for frame in store.read(key, start, stop)])
            return {"frames": frames, "valid": np.ones(len(frames), np.uint8)}

        cache.fill(decode, block=_BLOCK, description=f"decode {key}", reporter=reporter)
        parts.append(_part(cache, "store", f"{folder.name}/{key}", np.arange(store.num_frames), source=source))
    return parts


def _open_cache(root: Path, identity: Mapping[str, Any], size: int, num_rows: int) -> ArrayCache:
    outputs = {"frames": ArraySpec("uint8", (size, size, 3)), "valid": ArraySpec("uint8", ())}
    return ArrayCache(root, identity=identity, outputs=outputs, num_rows=num_rows)


def _part(cache: ArrayCache, kind: str, name: str, rows: np.ndarray, *, source: int) -> FramePart:
    file = cache.path / "frames.npy"
    skipped = cache.num_rows - len(rows)
    return FramePart(kind, name, file, rows, cache.content_hash(), source, skipped, cache, cache.array("frames"))
