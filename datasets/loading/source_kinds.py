"""What a folder of pre-training frames is a folder of."""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from embodied.datasets.files.image_files import SUFFIXES as IMAGE_SUFFIXES
from embodied.datasets.files.video_files import SUFFIXES as VIDEO_SUFFIXES
from embodied.datasets.importers.webdataset_shards import SUFFIXES as SHARD_SUFFIXES

KINDS = ("images", "shards", "videos")  # a folder is of the first of which there are any
_log = logging.getLogger(__name__)


def source_kind(path: Path) -> str:
    """One of `KINDS`; `images` too for what holds none of them, or is not there.

    Warns of files of another kind in the folder: they are left out. Archives often lie beside what was in them.
    """
    if not path.is_dir():
        return _kind(path.name) or "images"
    counts = Counter(_kind(file.name) for file in path.rglob("*"))
    found = [kind for kind in KINDS if counts[kind]]
    for other in found[1:]:
        _log.warning("left out %d %s in %s, which counts as a folder of %s", counts[other], other, path, found[0])
    return found[0] if found else "images"


def _kind(name: str) -> str | None:
    lower = name.lower()
    if name.endswith(SHARD_SUFFIXES):
        return "shards"
    suffix = Path(lower).suffix
    return "images" if suffix in IMAGE_SUFFIXES else "videos" if suffix in VIDEO_SUFFIXES else None
