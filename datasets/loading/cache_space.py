"""The caches in a folder: what is there, and room for new ones by deleting the least recently used."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.datasets.storage.disk import FileLock, disk_errors

PROGRESS = "progress.json"
_LOCKS = ".locks"
_NAME = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class CacheInfo:
    """One cache folder: its size, whether it is complete, when it was last used (seconds since 1970) and what for."""

    path: Path
    size_bytes: int
    complete: bool
    last_used_s: float
    identity: Mapping[str, Any]


def lock_path(folder: Path) -> Path:
    """Outside the cache folder, so that deleting a cache does not split its lock in two."""
    return folder.parent / _LOCKS / folder.name


def list_caches(root: str | Path) -> list[CacheInfo]:
    """The caches under `root`, least recently used first."""
    found = []
    for folder in Path(root).glob("*/"):
        if not _NAME.fullmatch(folder.name):
            continue
        try:
            size = sum(path.stat().st_size for path in folder.iterdir())
            used, complete, identity = folder.stat().st_mtime, False, {}
            # Without a record, or with one that cannot be read, whoever opens the cache computes it again.
            with suppress(ValueError, KeyError, TypeError, FileNotFoundError):
                record = json.loads((folder / PROGRESS).read_bytes())
                complete, identity = record["done"] == record["rows"], record["identity"]
                used = (folder / PROGRESS).stat().st_mtime
            found.append(CacheInfo(folder, size, complete, used, identity))
        except FileNotFoundError:
            continue  # somebody deleted it meanwhile
    return sorted(found, key=lambda cache: cache.last_used_s)


def prune(root: str | Path, max_bytes: int, *, unfinished: bool = False) -> list[Path]:
    """Delete caches that nobody has open, least recently used first, until `max_bytes` remain.

    Args:
        root: the folder of caches.
        max_bytes: of all caches together.
        unfinished: delete also those that a killed process left half built, after all complete ones.

    Returns:
        The folders that were deleted.
    """
    caches = list_caches(root)
    total, deleted = sum(cache.size_bytes for cache in caches), []
    for cache in sorted(caches, key=lambda cache: not cache.complete):  # stable: still the least recently used first
        if total <= max_bytes or not (cache.complete or unfinished):
            break
        lock = FileLock(lock_path(cache.path))
        if not lock.acquire(wait=False):
            continue
        with disk_errors(cache.path, "deleting the cache"):
            shutil.rmtree(cache.path)
        lock.release()
        total -= cache.size_bytes
        deleted.append(cache.path)
    return deleted


def make_room(root: Path, wanted: int, *, max_bytes: int) -> None:
    """Delete caches that nobody has open until `wanted` more bytes keep all together within `max_bytes`.

    Raises:
        UserError: they do not fit even then.
    """
    remedy = "raise max_bytes, take fewer keys or episodes or a smaller image_size, or stream (StreamingWindows)"
    if wanted > max_bytes:
        raise UserError(f"{_gb(wanted)} are wanted in {root}, and the cap is {_gb(max_bytes)}: {remedy}")
    prune(root, max_bytes - wanted, unfinished=True)
    used = sum(cache.size_bytes for cache in list_caches(root))
    if used + wanted > max_bytes:
        raise UserError(
            f"{_gb(wanted)} are wanted in {root}, where caches in use take {_gb(used)} of {_gb(max_bytes)}: wait until "
            f"they are closed, or {remedy}"
        )


def _gb(size: int) -> str:
    return f"{size / 1e9:.2f} GB"
