"""Reads all of a store and compares it with what was written: any flipped bit is found and named."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from embodied.core.errors import UserError
from embodied.datasets.storage.location import Storage, open_storage
from embodied.datasets.store.episode_index import FILE_NAME, EpisodeInfo
from embodied.datasets.store.frame_arrays import DamagedFramesError, FrameArray
from embodied.datasets.store.index_segments import FOLDER, GROUP_FILE, group_bytes, merged_statistics
from embodied.datasets.store.store_header import SCHEMA, StoreHeader, array_document, load_record
from embodied.datasets.store.store_index import load_segments
from embodied.datasets.store.store_migration import open_index

_MOST_LOST_FILES = 4096  # of a key that are looked for one by one


@dataclass(frozen=True)
class Damage:
    """Something in a store that is not what was written.

    Args:
        episode: its number; None where no one episode is concerned.
        key: of the frames; empty for the index.
        chunk: number of the chunk in the key's array; None where the whole episode or file is concerned.
        path: the file.
        reason: in what way.
    """

    episode: int | None
    key: str
    chunk: int | None
    path: str
    reason: str

    def __str__(self) -> str:
        parts = [f"episode {self.episode}"] if self.episode is not None else []
        parts += [f"key {self.key}"] if self.key else []
        parts += [f"chunk {self.chunk}"] if self.chunk is not None else []
        return f"{', '.join(parts) or 'index'}: {self.path}: {self.reason}"


def validate_store(store: str | Path | Storage) -> Iterator[Damage]:
    """Every damage of a store, also of one whose index is damaged; none for a sound one.

    Raises:
        UserError: there is no store, or disk or server fail.
    """
    storage = open_storage(store) if isinstance(store, (str, Path)) else store
    try:
        old, header, episodes = _opened(storage)
    except UserError as error:
        if storage.size(FILE_NAME) is None:
            raise
        yield Damage(None, "", None, _path(storage, FILE_NAME), str(error))
        return
    if not old:
        yield from _validate_document(storage, FILE_NAME, header.document())
        yield from _validate_document(storage, GROUP_FILE, json.loads(group_bytes()))
        episodes = yield from _validate_index(storage, header)
    frames = max((info.stop for info in episodes), default=0)
    for key, spec in header.keys.items():
        if not old:
            yield from _validate_array_document(storage, header, key, frames)
        yield from _validate_frames(storage, key, FrameArray(storage, key, spec, header.layouts[key]), episodes)


def _opened(storage: Storage) -> tuple[bool, StoreHeader, Sequence[EpisodeInfo]]:
    record = load_record(storage)
    if record["schema"] == SCHEMA:
        return False, StoreHeader.from_record(record, storage.location), ()
    index = open_index(storage)
    return True, index.header, index.episodes


def _path(storage: Storage, name: str) -> str:
    return f"{storage.location}/{name}"


def _validate_index(storage: Storage, header: StoreHeader) -> Generator[Damage, None, list[EpisodeInfo]]:
    """Also gives the episodes that are sound."""
    try:
        segments, faults = load_segments(storage, header.keys, {})
    except UserError as error:
        yield Damage(None, "", None, _path(storage, FOLDER), str(error))
        return []
    for name, fault in faults:
        yield Damage(fault.episode, "", None, _path(storage, name), f"line {fault.line}: {fault.reason}")
    episodes = [info for segment in segments for info in segment.episodes]
    for segment in segments:
        for key, spec in header.keys.items():
            try:
                merged_statistics([segment], key, spec, storage.location)
            except UserError as error:
                yield Damage(None, key, None, _path(storage, segment.name), str(error))
    return episodes


def _validate_document(storage: Storage, name: str, expected: Mapping[str, Any]) -> Iterator[Damage]:
    found = _document(storage, name)
    if found != expected:
        reason = "the file is missing" if found is None else "it does not say what was written"
        yield Damage(None, "", None, _path(storage, name), reason)


def _validate_array_document(storage: Storage, header: StoreHeader, key: str, frames: int) -> Iterator[Damage]:
    name = f"{key}/{FILE_NAME}"
    found = _document(storage, name)
    try:
        said = found["shape"][0]  # more than the index names, after an append that was killed
    except (TypeError, KeyError, IndexError):
        said = None
    frames = said if type(said) is int and said > frames else frames
    for damage in _validate_document(storage, name, array_document(header.keys[key], header.layouts[key], frames)):
        yield replace(damage, key=key)


def _document(storage: Storage, name: str) -> Any:
    try:
        return json.loads(storage.read(name))
    except KeyError:
        return None
    except (ValueError, RecursionError):
        return {}


def _validate_frames(
    storage: Storage, key: str, array: FrameArray, episodes: Sequence[EpisodeInfo]
) -> Iterator[Damage]:
    # An index that claims more frames than there can be must not keep us here for ever.
    most = (len(storage.list(f"{key}/c")) + _MOST_LOST_FILES) * array.shard
    frames = min(most, max((info.stop for info in episodes), default=0))
    waiting = deque(episodes)
    digest, sound = sha256(), True
    for first, last, payload in array.payloads(0, frames):
        while waiting and waiting[0].start < last:
            info = waiting[0]
            if isinstance(payload, DamagedFramesError):
                sound = False
                yield Damage(info.index, key, payload.chunk, _path(storage, payload.name), payload.reason)
            else:
                array.codec.update(digest, payload[max(info.start - first, 0) : info.stop - first])
            if info.stop > last:
                break
            if sound and digest.hexdigest() != info.hashes[key]:
                path = _path(storage, array.name(info.start // array.shard))
                yield Damage(info.index, key, None, path, "its frames are not those that were appended")
            waiting.popleft()
            digest, sound = sha256(), True
    for info in waiting:
        path = _path(storage, array.name(max(info.start, most) // array.shard))
        yield Damage(info.index, key, max(info.start, most) // array.chunk, path, "the file is missing")
