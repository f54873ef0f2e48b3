"""A store that one command fills, and that the same command goes on with after an interruption."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json
from embodied.datasets.storage.disk import FileLock, disk_errors
from embodied.datasets.storage.location import open_storage
from embodied.datasets.storage.s3 import S3Storage
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore


@contextmanager
def resumable_store(
    path: str | Path,
    *,
    keys: Mapping[str, KeySpec],
    fps: float,
    robot: str,
    provenance: Mapping[str, Any],
    part: str,
) -> Iterator[EpisodeStore]:
    """The store at `path` open for appending: a new one, or one that was made in the same way.

    Args:
        path: of the store.
        keys, fps, robot, provenance: of the store, as in `EpisodeStore.create`.
        part: the entry of `provenance` that says how the store is made; only an equal one may be continued.

    Raises:
        UsageError: the store at `path` was made in another way.
        UserError: another process is filling it, or it cannot be opened.
    """
    storage = open_storage(path)
    with storage.filling(part) if isinstance(storage, S3Storage) else _filling(Path(path), part):
        if storage.exists():
            _require_same(EpisodeStore.open(path), keys=keys, fps=fps, made=provenance[part], part=part)
            opened = EpisodeStore.open(path, mode="a")
        else:
            opened = EpisodeStore.create(path, keys=keys, fps=fps, robot=robot, provenance=provenance)
        with opened as store:
            yield store


@contextmanager
def _filling(path: Path, part: str) -> Iterator[None]:
    lock = FileLock(path.parent / f".{path.name}.{part}.lock")
    with disk_errors(path, "taking the lock"):
        if not lock.acquire(wait=False):
            raise UserError(f"{lock.holder()} is filling {path}: wait until it is done, or stop it")
    try:
        yield
    finally:
        lock.release()


def _require_same(
    store: EpisodeStore, *, keys: Mapping[str, KeySpec], fps: float, made: Mapping[str, Any], part: str
) -> None:
    before = store.provenance.get(part)
    if not isinstance(before, Mapping):
        raise UsageError(f"{store.path} is a store that was made in another way: choose another to=")
    for name in sorted({*before, *made}):
        if hash_json(before.get(name)) != hash_json(made.get(name)):
            raise UsageError(
                f"{store.path} was made with {name}={_short(before.get(name))}, not {_short(made.get(name))}: "
                "repeat that command, or choose another to="
            )
    for key in sorted({*store.keys, *keys}):
        if store.keys.get(key) != keys.get(key):
            raise UsageError(
                f"{store.path} holds {key} as {_described(store.keys.get(key))}, and the source now has "
                f"{_described(keys.get(key))}: the source has changed; choose another to="
            )
    if store.fps != fps:
        raise UsageError(f"{store.path} has {store.fps:g} frames/s, and the source now {fps:g}: choose another to=")


def _described(spec: KeySpec | None) -> str:
    return "nothing" if spec is None else f"{spec.describe()} ({spec.codec})"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
