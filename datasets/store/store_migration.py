"""Stores of older schemas: read as they are, and brought to today's schema in place.

Schema 1 kept all episodes in the attributes of the zarr group, and no quantiles. Its frames are in today's format, so
only the index is written anew: beside the old one, which counts until the group's metadata is replaced at once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from embodied.core.errors import UsageError, UserError
from embodied.datasets.storage.location import Storage, open_storage
from embodied.datasets.store.episode_checks import checked_fps, checked_keys
from embodied.datasets.store.episode_index import (
    FILE_NAME,
    DamagedLineError,
    EpisodeInfo,
    KeySpec,
    damaged_index,
    episode_from_json,
)
from embodied.datasets.store.frame_arrays import DamagedFramesError, FrameArray, damage_error
from embodied.datasets.store.index_segments import FOLDER, GROUP_FILE, Segment, group_bytes, make_segment, segment_name
from embodied.datasets.store.index_segments import to_bytes as segment_bytes
from embodied.datasets.store.running_statistics import RunningStatistics, statistics_of
from embodied.datasets.store.store_header import (
    SCHEMA,
    Layout,
    StoreHeader,
    array_files,
    check_layout,
    checked_content,
    load_record,
    to_bytes,
)
from embodied.datasets.store.store_index import StoreIndex

LOCK_WAIT_S = 120.0


def open_index(storage: Storage) -> StoreIndex:
    """The index of a store of any schema this package reads.

    Raises:
        UserError: there is no store, it is damaged, or a newer embodied wrote it.
    """
    record = load_record(storage)
    if record["schema"] < SCHEMA:
        return _read_schema_1(storage, record)
    return StoreIndex(StoreHeader.from_record(record, storage.location)).refreshed(storage)


def migrate(path: str | Path) -> bool:
    """Bring the store at `path` to today's schema; a run that was killed is done again from its start.

    Returns:
        Whether it had an older schema.

    Raises:
        UserError: there is no store, it is damaged, or it can only be read.
    """
    storage = open_storage(path)
    if load_record(storage)["schema"] == SCHEMA:
        return False
    with storage.lock(wait_s=LOCK_WAIT_S):
        record = load_record(storage)
        if record["schema"] == SCHEMA:
            return False
        storage.sweep()
        index = _read_schema_1(storage, record)
        for name in storage.list(FOLDER):  # of a migration that was killed, perhaps before more was appended
            storage.delete(name)
        storage.write(GROUP_FILE, group_bytes())
        if index.episodes:
            segment = make_segment(index.episodes, _all_statistics(storage, index))
            storage.write(segment.name, segment_bytes(segment))
        for name, data in array_files(index.header, index.num_frames):
            storage.write(name, data)
        storage.write(FILE_NAME, to_bytes(index.header.document()))
    return True


def _all_statistics(storage: Storage, index: StoreIndex) -> dict[str, RunningStatistics]:
    lengths = [info.length for info in index.episodes]
    found = {}
    for key, spec in index.header.keys.items():
        frames = FrameArray(storage, key, spec, index.header.layouts[key])
        try:
            statistics = statistics_of(key, spec, lengths, frames.read)
        except DamagedFramesError as error:
            raise damage_error(storage.location, key, error, index.episodes) from error
        if statistics is not None:
            found[key] = statistics
    return found


def _read_schema_1(storage: Storage, record: Mapping[str, Any]) -> StoreIndex:
    content = checked_content(record, storage.location)
    path = f"{storage.location}/{FILE_NAME}"
    try:
        specs = {key: KeySpec(value["dtype"], tuple(value["shape"])) for key, value in content["keys"].items()}
        keys, fps = checked_keys(specs), checked_fps(content["fps"])
        robot, provenance = str(content["robot"]), dict(content["provenance"])
        episodes = _episodes(content["episodes"], keys)
    except (UsageError, DamagedLineError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise damaged_index(path, str(error) or type(error).__name__) from error
    layouts = {key: _layout(storage, key, spec) for key, spec in keys.items()}
    header = StoreHeader(keys, layouts, fps, robot, provenance)
    segments = (Segment(segment_name(0, len(episodes)), episodes, {}),) if episodes else ()
    return StoreIndex(header, segments, old_schema=True)


def _episodes(records: list[Mapping[str, Any]], keys: Mapping[str, KeySpec]) -> tuple[EpisodeInfo, ...]:
    episodes: list[EpisodeInfo] = []
    for number, record in enumerate(records):
        start = episodes[-1].stop if episodes else 0
        whole = {**record, "episode": number, "start": start, "origin": "", "notes": {}}
        episodes.append(episode_from_json(whole, keys))
    return tuple(episodes)


def _layout(storage: Storage, key: str, spec: KeySpec) -> Layout:
    name = f"{key}/{FILE_NAME}"
    try:
        document = json.loads(storage.read(name))
        shard, *frame = document["chunk_grid"]["configuration"]["chunk_shape"]
        place = Layout(document["codecs"][0]["configuration"]["chunk_shape"][0], shard)
        found = KeySpec(document["data_type"], tuple(document["shape"][1:]))
    except (KeyError, ValueError, TypeError, IndexError, RecursionError) as error:
        raise UserError(f"{storage.location}/{name} is missing or damaged: restore the store from a copy") from error
    if found != KeySpec(spec.dtype, spec.shape) or tuple(frame) != spec.shape:
        raise UserError(f"{storage.location}/{name} says {found.describe()}, but the index says {spec.describe()}")
    check_layout(key, spec, place, storage.location)
    return place
