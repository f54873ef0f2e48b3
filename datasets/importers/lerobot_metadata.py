"""What a LeRobotDataset says of itself: info.json, its tasks and its episodes, checked before anything is believed."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.foreign_json import parse_object, read_object

VERSIONS = ("v2.0", "v2.1", "v3.0")
INFO = "meta/info.json"
_FIELD = re.compile(r"\{(\w+)(?::0(\d)d)?\}")


@dataclass(frozen=True)
class Feature:
    """A key of info.json: dtype (`video`, `image`, `string` or NumPy's name), shape of a frame, names of elements."""

    dtype: str
    shape: tuple[int, ...]
    names: tuple[str, ...]
    info: Mapping[str, Any]

    @property
    def number(self) -> np.dtype | None:
        """NumPy's dtype; None for what is no number."""
        try:
            dtype = np.dtype(self.dtype)
        except TypeError:
            return None
        return dtype if dtype.kind in "biuf" and dtype.name == self.dtype else None

    @property
    def is_depth(self) -> bool:
        return bool(self.info.get("is_depth_map") or self.info.get("video.is_depth_map"))


@dataclass(frozen=True)
class Clip:
    """Where the frames of one episode are in a video file: from `start_s` on."""

    path: Path
    start_s: float


@dataclass(frozen=True)
class Entry:
    """One episode: its number, its length, where its rows and frames are, and its tasks as far as they are known."""

    index: int
    length: int
    data: Path
    clips: Mapping[str, Clip]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class Info:
    """info.json, checked."""

    root: Path
    version: str
    fps: float
    robot: str
    features: Mapping[str, Feature]
    episodes: int
    frames: int
    chunks_size: int
    data_path: str
    video_path: str
    splits: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.root / INFO

    @property
    def video_keys(self) -> list[str]:
        return [key for key, feature in self.features.items() if feature.dtype == "video"]

    def file(self, template: str, **fields: int | str) -> Path:
        """The file that a template of info.json names, which lies below the dataset's folder.

        Raises:
            UserError: the template asks for what it cannot have, or leads out of the folder.
        """

        def put(match: re.Match[str]) -> str:
            value = fields.get(match[1])
            if value is None:
                raise UserError(f"{self.path}: {template!r} has {{{match[1]}}}, expected {', '.join(sorted(fields))}")
            return f"{value:0{match[2]}d}" if match[2] and isinstance(value, int) else str(value)

        name = _FIELD.sub(put, template)
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\0" in name or "\\" in name or "{" in name:
            raise UserError(f"{self.path}: {template!r} gives {name!r}, which is no path inside the dataset's folder")
        return self.root.joinpath(*parts)


def read_info(root: Path) -> Info:
    """The checked info.json of the dataset in `root`.

    Raises:
        UserError: it is missing, damaged, or of a version that is not read here.
    """
    path = root / INFO
    if not path.is_file():
        raise UserError(f"{root} is no LeRobotDataset: it has no {INFO}")
    record = read_object(path)
    version = record.get("codebase_version")
    if version not in VERSIONS:
        raise UserError(
            f"{path}: codebase_version {version!r} is not read here, only {', '.join(VERSIONS)}: convert the dataset "
            "with the scripts of the lerobot package"
        )
    features = _require(record, "features", dict, path)
    if not features:
        raise UserError(f"{path}: features is empty: there is nothing to import")
    fps = record.get("fps")
    if isinstance(fps, bool) or not isinstance(fps, int | float) or not isfinite(fps) or fps <= 0:
        raise UserError(f"{path}: fps must be a positive number, got {fps!r}")
    splits = record.get("splits")
    return Info(
        root=root,
        version=str(version),
        fps=float(fps),
        robot=str(record.get("robot_type") or ""),
        features={str(key): _feature(str(key), value, path) for key, value in features.items()},
        episodes=_count(record, "total_episodes", path),
        frames=_count(record, "total_frames", path),
        chunks_size=max(1, _count(record, "chunks_size", path)),
        data_path=_require(record, "data_path", str, path),
        video_path=str(record.get("video_path") or ""),
        splits={str(key): str(value) for key, value in splits.items()} if isinstance(splits, dict) else {},
    )


def check_entries(info: Info, entries: Sequence[Entry], source: str) -> list[Entry]:
    """The episodes in order, after checking that they are those that info.json promises.

    Args:
        info: of the dataset.
        entries: as read from `source`, in any order.
        source: the file or folder they come from, for messages.
    """
    ordered = sorted(entries, key=lambda entry: entry.index)
    for position, entry in enumerate(ordered):
        if entry.index != position:
            raise UserError(f"{source}: episode {position} is missing or listed twice: fetch the dataset again")
        if entry.length < 1:
            raise UserError(f"{source}: episode {entry.index} has length {entry.length}, expected at least 1")
    frames = sum(entry.length for entry in ordered)
    if (len(ordered), frames) != (info.episodes, info.frames):
        raise UserError(
            f"{info.path} promises {info.episodes} episodes with {info.frames} frames, but {source} lists "
            f"{len(ordered)} with {frames}: fetch the dataset again, or correct the totals"
        )
    return ordered


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """The objects in a file with one JSON object a line.

    Raises:
        UserError: the file is missing, or a line is no JSON object; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read ({error}): fetch it again") from error
    return [parse_object(line, f"{path}, line {number}") for number, line in enumerate(lines, 1) if line.strip()]


def whole(value: object, name: str, where: str) -> int:
    """`value` as a count or an index.

    Raises:
        UserError: it is no whole number of at least 0.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
        raise UserError(f"{where}: {name} must be a whole number of at least 0, got {value!r}")
    return int(value)


def _require(record: Mapping[str, Any], name: str, kind: type, path: Path) -> Any:
    if not isinstance(record.get(name), kind):
        raise UserError(f"{path}: {name} must be a JSON {kind.__name__}, got {record.get(name)!r}")
    return record[name]


def _count(record: Mapping[str, Any], name: str, path: Path) -> int:
    return whole(record.get(name, 0 if name == "chunks_size" else None), name, str(path))


def _feature(key: str, record: object, path: Path) -> Feature:
    where = f"{path}: features[{key!r}]"
    if not isinstance(record, dict) or not isinstance(record.get("dtype"), str):
        raise UserError(f"{where} must be an object with a dtype, got {str(record)[:100]}")
    shape = record.get("shape")
    if not isinstance(shape, list) or not 0 < len(shape) <= 16:
        raise UserError(f"{where}.shape must be a list of sizes, got {str(shape)[:100]}")
    sizes = tuple(whole(size, "shape", where) for size in shape)
    if 0 in sizes:
        raise UserError(f"{where}.shape must have sizes of at least 1, got {list(sizes)}")
    info = record.get("info") or record.get("video_info") or {}
    return Feature(record["dtype"], sizes, _names(record.get("names")), info if isinstance(info, dict) else {})


def _names(names: object) -> tuple[str, ...]:
    """Names of a vector's elements: a list, or (in v2.0) an object with one list."""
    if isinstance(names, dict):
        names = next(iter(names.values()), None) if len(names) == 1 else None
    return tuple(map(str, names)) if isinstance(names, list) else ()
