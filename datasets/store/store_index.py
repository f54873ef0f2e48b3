"""A snapshot of an episode store: its header and the episodes committed when it was taken.

Snapshots are immutable, so neither a failed append nor another process can leave one half changed.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from embodied.core.errors import UserError
from embodied.core.files import hash_json
from embodied.datasets.storage.location import Storage
from embodied.datasets.store.episode_index import ZSTD, EpisodeInfo, KeySpec, damaged_index
from embodied.datasets.store.index_segments import (
    FOLDER,
    MERGED,
    Fault,
    Segment,
    cover,
    due_for_merging,
    is_segment,
    make_segment,
    merged,
    merged_statistics,
    parse_segment,
    to_bytes,
)
from embodied.datasets.store.running_statistics import ReadFrames, RunningStatistics, statistics_of
from embodied.datasets.store.store_header import StoreHeader

_FINGERPRINT = 1  # of its definition, not of the store's schema: caches keyed by it outlive a migration
_MOST_TRIES = 20
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class StoreIndex:
    """What a store holds besides its frames; `old_schema` where it has no segments on disk yet."""

    header: StoreHeader
    segments: tuple[Segment, ...] = ()
    old_schema: bool = False

    @cached_property
    def episodes(self) -> tuple[EpisodeInfo, ...]:
        return tuple(episode for segment in self.segments for episode in segment.episodes)

    @property
    def num_episodes(self) -> int:
        return sum(len(segment.episodes) for segment in self.segments)

    @property
    def num_frames(self) -> int:
        return self.segments[-1].episodes[-1].stop if self.segments else 0

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the store holds; provenance, robot, rate, origins and notes are not part of it."""
        keys = {key: _key_identity(spec) for key, spec in self.header.keys.items()}
        episodes = [
            {"length": e.length, "task": e.task, "seed": e.seed, "success": e.success, "hashes": dict(e.hashes)}
            for e in self.episodes
        ]
        return hash_json({"schema": _FINGERPRINT, "keys": keys, "episodes": episodes})

    def statistics(self, key: str, location: str, read: ReadFrames) -> RunningStatistics | None:
        """The statistics of all episodes, for which an old store has to `read` them; None if no value was finite."""
        if self.old_schema:
            return statistics_of(key, self.header.keys[key], [info.length for info in self.episodes], read)
        return merged_statistics(self.segments, key, self.header.keys[key], location)

    def refreshed(self, storage: Storage) -> StoreIndex:
        """The snapshot of now; reads only what was committed since.

        Raises:
            UserError: the index is damaged.
        """
        if self.old_schema:
            return self
        known = {segment.name: segment for segment in self.segments}
        segments, faults = load_segments(storage, self.header.keys, known)
        for name, fault in faults:
            raise damaged_index(f"{storage.location}/{name}", f"line {fault.line}: {fault.reason}")
        return replace(self, segments=segments)

    def committed(
        self, storage: Storage, episode: EpisodeInfo, statistics: Mapping[str, RunningStatistics]
    ) -> StoreIndex:
        """Make `episode` part of the store; for the holder of the lock, on a snapshot of now."""
        segment = make_segment([episode], statistics)
        storage.write(segment.name, to_bytes(segment))
        segments = [*self.segments, segment]
        try:
            while due_for_merging(segments):
                new = merged(segments[-MERGED:], self.header.keys, storage.location)
                storage.write(new.name, to_bytes(new))
                segments[-MERGED:] = [new]
            if len(segments) <= len(self.segments):
                kept = {segment.name for segment in segments}
                for name in _segment_names(storage):  # also those that a killed writer did not get to
                    if name not in kept:
                        storage.delete(name)
        except UserError as error:  # the episode is committed; the next append merges
            _log.warning("the index of %s was not tidied: %s", storage.location, error)
        return replace(self, segments=tuple(segments))


def _key_identity(spec: KeySpec) -> dict[str, Any]:
    lossy = {} if spec.codec == ZSTD else {"codec": spec.codec}
    return {"dtype": spec.dtype, "shape": list(spec.shape), **lossy}


def load_segments(
    storage: Storage, keys: Mapping[str, KeySpec], known: Mapping[str, Segment]
) -> tuple[tuple[Segment, ...], list[tuple[str, Fault]]]:
    """The segments of now and what is wrong with them; files in `known` are not read again.

    Raises:
        UserError: a file of the index is missing, or disk or server fail.
    """
    for _ in range(_MOST_TRIES):
        names = _segment_names(storage)
        try:
            found = [_load(storage, name, keys, known) for name in cover(names, storage.location)]
        except KeyError:
            continue  # it was merged into another between listing and reading
        faults = [(segment.name, fault) for segment, wrong in found for fault in wrong]
        segments = tuple(segment for segment, _ in found)
        return segments, faults or _seams(segments)
    raise UserError(f"the index of {storage.location} changes all the time: try again")


def _load(
    storage: Storage, name: str, keys: Mapping[str, KeySpec], known: Mapping[str, Segment]
) -> tuple[Segment, list[Fault]]:
    return (known[name], []) if name in known else parse_segment(name, storage.read(name), keys)


def _seams(segments: tuple[Segment, ...]) -> list[tuple[str, Fault]]:
    stop, faults = 0, []
    for segment in segments:
        first = segment.episodes[0]
        if first.start != stop:
            faults.append(
                (
                    segment.name,
                    Fault(1, first.index, f"episode {first.index} starts at frame {first.start}, not {stop}"),
                )
            )
        stop = segment.episodes[-1].stop
    return faults


def _segment_names(storage: Storage) -> list[str]:
    return [name for name in storage.list(FOLDER) if is_segment(name)]
