"""The files of the episode index: segments of JSON lines, one line per episode and a last one with their statistics.

A segment is named by its episodes, `_index/000000032-000000048.jsonl`, and never changes. An append adds a segment of
one episode; sixteen of about the same size become one, so that N episodes are in O(log N) files and an episode is
written again O(log N) times. Where segments overlap, after a crash between writing the merged one and deleting the
sixteen, the longest counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from embodied.datasets.store.episode_index import (
    DamagedLineError,
    EpisodeInfo,
    KeySpec,
    damaged_index,
    episode_from_json,
    episode_to_json,
    from_line,
    to_line,
)
from embodied.datasets.store.running_statistics import RunningStatistics

FOLDER = "_index"
GROUP_FILE = f"{FOLDER}/zarr.json"  # zarr complains of folders that are neither group nor array
MERGED = 16
_NAME = re.compile(rf"{FOLDER}/([0-9]{{9,15}})-([0-9]{{9,15}})\.jsonl")


@dataclass(frozen=True)
class Segment:
    """A parsed segment: its file, its episodes, and per key the record of their statistics."""

    name: str
    episodes: tuple[EpisodeInfo, ...]
    statistics: Mapping[str, Any]

    @property
    def level(self) -> int:
        """How often sixteen became one to make it."""
        level, size = 0, len(self.episodes)
        while size >= MERGED:
            level, size = level + 1, size // MERGED
        return level


@dataclass(frozen=True)
class Fault:
    """A line (from 1) of a segment that is not what was written, and the episode that it should hold, if any."""

    line: int
    episode: int | None
    reason: str


def segment_name(first: int, stop: int) -> str:
    """The file of episodes `first` to `stop`."""
    return f"{FOLDER}/{first:09d}-{stop:09d}.jsonl"


def group_bytes() -> bytes:
    """The content of `GROUP_FILE`."""
    return b'{"zarr_format":3,"node_type":"group","attributes":{}}'


def is_segment(name: str) -> bool:
    """Whether a file is part of the index."""
    return _NAME.fullmatch(name) is not None


def make_segment(episodes: Sequence[EpisodeInfo], statistics: Mapping[str, RunningStatistics]) -> Segment:
    """The segment of consecutive episodes and their statistics."""
    name = segment_name(episodes[0].index, episodes[-1].index + 1)
    return Segment(name, tuple(episodes), {key: value.to_json() for key, value in statistics.items()})


def to_bytes(segment: Segment) -> bytes:
    """The file of a segment."""
    lines = [to_line("episode", episode_to_json(episode)) for episode in segment.episodes]
    return b"".join([*lines, to_line("statistics", segment.statistics)])


def parse_segment(name: str, data: bytes, keys: Mapping[str, KeySpec]) -> tuple[Segment, list[Fault]]:
    """The segment in a file, as far as it is sound, and what is wrong with it."""
    first, stop = _range(name)
    lines = data.split(b"\n")
    faults: list[Fault] = []
    episodes: list[EpisodeInfo] = []
    statistics: dict[str, Any] = {}
    if len(lines) != stop - first + 2 or lines[-1]:
        faults.append(Fault(len(lines), None, f"expected {stop - first + 1} whole lines, got {len(lines) - 1}"))
    for number, line in enumerate(lines[:-1]):
        try:
            if number < stop - first:
                episode = episode_from_json(from_line("episode", line), keys)
                _require_next(episode, first + number, episodes)
                episodes.append(episode)
            elif number == stop - first:
                statistics = _statistics(from_line("statistics", line), keys)
        except DamagedLineError as error:
            faults.append(Fault(number + 1, first + number if number < stop - first else None, str(error)))
    return Segment(name, tuple(episodes), statistics), faults


def _require_next(episode: EpisodeInfo, number: int, before: Sequence[EpisodeInfo]) -> None:
    follows = not before or before[-1].index + 1 != number or before[-1].stop == episode.start
    if episode.index != number or not follows:
        raise DamagedLineError(f"it is episode {episode.index} from frame {episode.start}, which does not fit here")


def _statistics(record: Any, keys: Mapping[str, KeySpec]) -> dict[str, Any]:
    if not isinstance(record, dict) or not record.keys() <= keys.keys():
        raise DamagedLineError("it does not hold the statistics of the store's keys")
    return record


def merged(segments: Sequence[Segment], keys: Mapping[str, KeySpec], location: str) -> Segment:
    """One segment in place of consecutive ones."""
    episodes = [episode for segment in segments for episode in segment.episodes]
    statistics = {key: value for key in keys if (value := merged_statistics(segments, key, keys[key], location))}
    return make_segment(episodes, statistics)


def merged_statistics(segments: Iterable[Segment], key: str, spec: KeySpec, location: str) -> RunningStatistics | None:
    """The statistics of a key over segments; None if no value was finite.

    Raises:
        UserError: a record is damaged.
    """
    total: RunningStatistics | None = None
    for segment in segments:
        if key not in segment.statistics:
            continue
        try:
            new = RunningStatistics.from_json(segment.statistics[key], spec, key)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise damaged_index(f"{location}/{segment.name}", f"the statistics of {key}: {error}") from error
        total = new if total is None else total.merged(new)
    return total


def cover(names: Iterable[str], location: str) -> list[str]:
    """Of the files of the index those that count, in the order of their episodes.

    Raises:
        UserError: one in the middle is missing.
    """
    longest: dict[int, tuple[int, str]] = {}
    for name in names:
        first, stop = _range(name)
        longest[first] = max(longest.get(first, (0, "")), (stop, name))
    position, chosen = 0, []
    while position in longest and longest[position][0] > position:
        position, name = longest[position]
        chosen.append(name)
    beyond = [name for stop, name in longest.values() if stop > position]
    if beyond:
        raise damaged_index(f"{location}/{FOLDER}", f"the file with episode {position} is missing before {min(beyond)}")
    return chosen


def due_for_merging(segments: Sequence[Segment]) -> bool:
    """Whether the last sixteen have about the same size."""
    return len(segments) >= MERGED and len({segment.level for segment in segments[-MERGED:]}) == 1


def _range(name: str) -> tuple[int, int]:
    match = _NAME.fullmatch(name)
    assert match, name
    return int(match[1]), int(match[2])
