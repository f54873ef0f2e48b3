"""The index of an episode store: what its episodes are, their hashes, and the statistics of their values.

It lives in the attributes of the store's zarr group, so any zarr reader sees it and replacing that one file commits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.core.files import hash_json, write_text
from embodied.core.protocols import IMAGE_PREFIX

FORMAT = "embodied-episode-store"
SCHEMA = 1
ATTRIBUTE = "embodied"
FILE_NAME = "zarr.json"
_LARGEST_STATISTIC = 4096  # elements per frame


@dataclass(frozen=True)
class KeySpec:
    """What one frame of a key is: a NumPy dtype name (bool, integers, floats) and the shape without time.

    Args:
        codec: how frames are kept: `zstd` (lossless) or `jpeg` (uint8 [H, W, 3] only, quality 95, lossy).
        names: of the elements of a vector, such as joint names; empty if unknown.
    """

    dtype: str
    shape: tuple[int, ...]
    codec: str = "zstd"
    names: tuple[str, ...] = ()

    def describe(self, length: int | None = None) -> str:
        """`float32 [T, 4]`, or with the length in place of T."""
        sizes = ", ".join(str(size) for size in ("T" if length is None else length, *self.shape))
        return f"{self.dtype} [{sizes}]"


@dataclass(frozen=True)
class EpisodeInfo:
    """One committed episode: frames `start` to `start + length` of the store, and how it came about."""

    index: int
    start: int
    length: int
    task: str
    seed: int
    success: bool
    hashes: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True)
class RunningStatistics:
    """Count, mean, sum of squared deviations and range of each element, after Chan, Golub and LeVeque (1979)."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray) -> RunningStatistics:
        """The statistics of frames [T, ...], T at least 1."""
        values = frames.astype(np.float64)
        mean = values.mean(axis=0)
        return cls(len(values), mean, ((values - mean) ** 2).sum(axis=0), values.min(axis=0), values.max(axis=0))

    def merged(self, other: RunningStatistics) -> RunningStatistics:
        """The statistics of both sets of frames together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return RunningStatistics(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def summary(self) -> dict[str, np.ndarray]:
        """float64 `mean`, `std` (of the population), `min` and `max`, each of a frame's shape."""
        return {"mean": self.mean, "std": np.sqrt(self.squares / self.count), "min": self.low, "max": self.high}

    def to_json(self) -> dict[str, Any]:
        arrays = {"mean": self.mean, "squares": self.squares, "low": self.low, "high": self.high}
        return {"count": self.count, **{name: array.tolist() for name, array in arrays.items()}}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], shape: tuple[int, ...]) -> RunningStatistics:
        arrays = (np.asarray(record[name], np.float64).reshape(shape) for name in ("mean", "squares", "low", "high"))
        return cls(int(record["count"]), *arrays)


@dataclass(frozen=True)
class EpisodeIndex:
    """Everything a store knows besides its frames; immutable, so a failed append cannot leave it half changed."""

    keys: Mapping[str, KeySpec]
    fps: float
    robot: str
    provenance: Mapping[str, Any]
    episodes: tuple[EpisodeInfo, ...] = ()
    statistics: Mapping[str, RunningStatistics] = field(default_factory=dict)

    @property
    def num_frames(self) -> int:
        return self.episodes[-1].start + self.episodes[-1].length if self.episodes else 0

    def with_episode(self, episode: EpisodeInfo, statistics: Mapping[str, RunningStatistics]) -> EpisodeIndex:
        """The index after one more episode, of which `statistics` are."""
        merged = {
            key: self.statistics[key].merged(new) if key in self.statistics else new for key, new in statistics.items()
        }
        return replace(self, episodes=(*self.episodes, episode), statistics=merged)

    def fingerprint(self) -> str:
        """SHA-256 of what the store holds; provenance, robot and rate are not part of it."""
        return hash_json({"schema": SCHEMA, "keys": self._keys_json(), "episodes": self._episodes_json()})

    def _keys_json(self) -> dict[str, Any]:
        return {key: {"dtype": spec.dtype, "shape": list(spec.shape)} for key, spec in self.keys.items()}

    def _episodes_json(self) -> list[dict[str, Any]]:
        return [
            {"length": e.length, "task": e.task, "seed": e.seed, "success": e.success, "hashes": dict(e.hashes)}
            for e in self.episodes
        ]

    def write(self, folder: Path) -> None:
        """Commit: replace the group's metadata file at once."""
        content = {
            "keys": self._keys_json(),
            "fps": self.fps,
            "robot": self.robot,
            "provenance": dict(self.provenance),
            "episodes": self._episodes_json(),
            "statistics": {key: value.to_json() for key, value in self.statistics.items()},
        }
        header = {"format": FORMAT, "schema": SCHEMA, "checksum": hash_json(content)}
        group = {"zarr_format": 3, "node_type": "group", "attributes": {ATTRIBUTE: {**header, **content}}}
        write_text(folder / FILE_NAME, json.dumps(group, allow_nan=False))

    @classmethod
    def read(cls, folder: Path) -> EpisodeIndex:
        """The committed index of the store in `folder`.

        Raises:
            UserError: there is no store, it is damaged, or a newer embodied wrote it.
        """
        record = _load_record(folder)
        content = {key: value for key, value in record.items() if key not in ("format", "schema", "checksum")}
        if hash_json(content) != record.get("checksum"):
            raise UserError(f"the index of the episode store {folder} ({FILE_NAME}) is damaged: restore it from a copy")
        keys = {key: KeySpec(spec["dtype"], tuple(spec["shape"])) for key, spec in content["keys"].items()}
        statistics = {
            key: RunningStatistics.from_json(value, keys[key].shape) for key, value in content["statistics"].items()
        }
        episodes = _episodes_from_json(content["episodes"])
        return cls(keys, content["fps"], content["robot"], content["provenance"], episodes, statistics)


def has_statistics(key: str, spec: KeySpec) -> bool:
    """Whether a store keeps statistics of a key: not of images, nor of frames as large as one."""
    return not key.startswith(IMAGE_PREFIX) and prod(spec.shape) <= _LARGEST_STATISTIC


def is_store(folder: str | Path) -> bool:
    """Whether `folder` holds a zarr group: an episode store, or at least something meant to be one."""
    return (Path(folder) / FILE_NAME).is_file()


def _load_record(folder: Path) -> dict[str, Any]:
    path = folder / FILE_NAME
    if not folder.is_dir():
        raise UserError(f"no episode store at {folder}: there is no such folder")
    if not path.is_file():
        raise UserError(f"{folder} is not an episode store: it has no {FILE_NAME}")
    try:
        record = json.loads(path.read_bytes()).get("attributes", {}).get(ATTRIBUTE)
    except (ValueError, AttributeError) as error:
        raise UserError(f"{path} is damaged ({error}): restore it from a copy") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise UserError(f"{folder} is a zarr folder, but not an episode store written by embodied")
    schema = record.get("schema")
    if not isinstance(schema, int) or schema > SCHEMA:
        raise UserError(
            f"the episode store {folder} has schema {schema}, and this embodied reads up to {SCHEMA}: upgrade embodied "
            "(pip install -U embodied-learning)"
        )
    return record


def _episodes_from_json(records: Sequence[Mapping[str, Any]]) -> tuple[EpisodeInfo, ...]:
    episodes, start = [], 0
    for index, record in enumerate(records):
        episodes.append(EpisodeInfo(index=index, start=start, **record))
        start += record["length"]
    return tuple(episodes)
