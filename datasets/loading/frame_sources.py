"""The sources of pre-training frames, each decoded once into a cache of uint8 [F, S, S, 3]."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.image_files import list_images, read_square
from embodied.datasets.loading.array_cache import ArrayCache, Blocks, Range
from embodied.datasets.loading.frame_parts import BLOCK, FrameCaches, FramePart, NamedLabels, folder_labels
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.loading.npy_rows import ArraySpec
from embodied.datasets.loading.read_ahead import cpu_threads, read_ahead
from embodied.datasets.store.episode_store import EpisodeStore

_log = logging.getLogger(__name__)


def folder_part(folder: Path, caches: FrameCaches, *, source: int, on_error: Literal["raise", "skip"]) -> FramePart:
    """The images of a folder; those of folders in it have the folders' names as classes.

    Raises:
        UserError: the folder holds no image that can be read, or with `on_error="raise"` one that cannot.
    """
    if not folder.is_dir():
        raise UserError(
            f"no episode store and no folder of images, videos or shards at {folder}: check the path, or make a "
            "store by embodied data import or embodied collect"
        )
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

    cache.fill(blocks, block=BLOCK, description=f"decode {folder.name}", reporter=caches.reporter)
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
    return FramePart(
        kind="images",
        name=folder.name,
        frames=cache.rows("frames"),
        valid=cache.rows("valid") if skipped else None,
        fingerprint=cache.content_hash(),
        source=source,
        skipped=skipped,
        held=cache,
        labels=folder_labels(paths, folder),
    )


def store_parts(folder: Path, caches: FrameCaches, *, source: int) -> list[FramePart]:
    """The frames of an episode store, a part per image key; the tasks are the classes, if all episodes have one.

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
    lengths, labels = np.array(data.lengths), None
    if all(data.tasks):
        of_episodes = NamedLabels.of([data.tasks[index] for index in data.task_indices])
        labels = NamedLabels(of_episodes.names, np.repeat(of_episodes.numbers, lengths))
    return [
        FramePart(
            kind="store",
            name=f"{folder.name}/{key}",
            frames=rows,
            valid=None,
            fingerprint=data.content_hash(key),
            source=source,
            skipped=0,
            held=data,
            labels=labels,
            lengths=lengths,
            store=folder,
        )
        for key, rows in data.rows.items()
    ]
