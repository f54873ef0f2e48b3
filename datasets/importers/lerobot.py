"""LeRobotDataset v3.0, v2.1 and v2.0, read from the format itself.

    source = open_source("pusht", episodes=range(10))
    for episode in source.episodes():
        for block in episode.blocks():
            block["observation.image"]  # uint8 [T, 96, 96, 3]

Numbers come with the dtype of info.json, those of shape [1] as scalars, as lerobot gives them. Videos are decoded once,
in file order. `frame_index`, `episode_index` and `index` are checked and left out, since the store counts by itself;
`task_index` comes along only where an episode has several tasks, whose texts are in `provenance["tasks"]`. Text columns
are named in `provenance["left_out"]`. Depth videos (12-bit codes) come as uint16 codes, with the parameters that turn
them into metres under `provenance["features"]`.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EncodedBlock, Format, SourceEpisode
from embodied.datasets.files.encoded_images import decode_image, decode_picture, is_lossy
from embodied.datasets.files.foreign_json import plain_json
from embodied.datasets.files.parquet_files import column_array
from embodied.datasets.files.video_files import TOLERANCE_S, VideoFile, decoding_threads
from embodied.datasets.importers.lerobot_episodes import read_episodes, read_subtasks, read_tasks
from embodied.datasets.importers.lerobot_metadata import INFO, Entry, Feature, Info, read_info
from embodied.datasets.importers.lerobot_rows import EpisodeRows, image_bytes
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.planar_frames import Frames

FORMAT = Format(
    "lerobot",
    "LeRobotDataset v3.0, v2.1 or v2.0: a folder with meta/info.json",
    lambda path: (path / INFO).is_file(),
)

_log = logging.getLogger(__name__)
_COUNTERS = ("frame_index", "episode_index", "index")
_TASK_INDEX = "task_index"
_TIMESTAMP, _SUCCESS = "timestamp", "next.success"
_MOST_ROWS = 1024  # in a block without images


def open_source(
    path: Path, *, episodes: Iterable[int] | None = None, tolerance_s: float = TOLERANCE_S
) -> LeRobotSource:
    """Open a dataset's folder.

    Args:
        path: the folder that holds `meta`, `data` and perhaps `videos`.
        episodes: their numbers; all if None.
        tolerance_s: how far a video's frame may lie from the time that its row says.

    Raises:
        UsageError: there is no such episode.
        UserError: the folder is no dataset of a known version, or damaged.
        MissingExtraError: pyarrow is not installed.
    """
    if not 0 < tolerance_s < float("inf"):
        raise UsageError(f"options.tolerance_s must be a positive number of seconds, got {tolerance_s}")
    info = read_info(Path(path))
    entries = read_episodes(info)
    if episodes is not None:
        chosen = sorted({_episode_number(number) for number in episodes})
        if absent := [number for number in chosen if not 0 <= number < len(entries)]:
            raise UsageError(f"episodes: {absent[0]} is not in {path}, which has episodes 0 to {len(entries) - 1}")
        entries = [entries[number] for number in chosen]
    if not entries:
        raise UserError(f"{path} has no episodes")
    return LeRobotSource(info, entries, tolerance_s=tolerance_s)


class LeRobotSource:
    """An opened dataset; see `EpisodeSource`. Episodes are best read in order: then nothing is decoded twice."""

    def __init__(self, info: Info, entries: list[Entry], *, tolerance_s: float) -> None:
        self._info, self._entries, self._tolerance_s = info, entries, tolerance_s
        self._videos: dict[str, VideoFile] = {}
        self._rows = EpisodeRows(info, batch_rows=1)
        self._tasks = read_tasks(info)
        self.fps, self.robot = info.fps, info.robot
        self.keys, left_out = self._specs()
        if left_out:
            _log.warning("left out: %s", "; ".join(f"{key} ({why})" for key, why in left_out.items()))
        success = self.keys.get(_SUCCESS)
        self._says_success = success is not None and success.dtype == "bool" and success.shape == ()
        frame_bytes = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in self.keys.values())
        self._rows.batch_rows = max(1, min(_MOST_ROWS, BLOCK_BYTES // frame_bytes))
        self.provenance: Mapping[str, Any] = {
            "format": FORMAT.name,
            "codebase_version": info.version,
            "splits": dict(info.splits),
            "tasks": {str(index): text for index, text in self._tasks.items()},
            "features": {key: plain_json(dict(feature.info)) for key, feature in info.features.items() if feature.info},
            "left_out": left_out,
        }
        if subtasks := read_subtasks(info):
            self.provenance["subtasks"] = {str(index): text for index, text in subtasks.items()}

    def __len__(self) -> int:
        return len(self._entries)

    def episodes(self) -> Iterator[SourceEpisode]:
        """The episodes; of those with several tasks, and where `next.success` says it, two small columns are read."""
        for entry in self._entries:
            tasks = entry.tasks
            if len(tasks) != 1:
                counted = Counter(self._rows.column(entry, _TASK_INDEX).tolist())
                tasks = tuple(self._task(index, entry) for index, _ in counted.most_common())
            success = None
            if self._says_success:
                success = bool(self._rows.column(entry, _SUCCESS).any())
            notes = {"tasks": list(tasks)} if len(tasks) > 1 else {}
            yield SourceEpisode(
                origin=f"episode_{entry.index:06d}",
                task=tasks[0],
                blocks=lambda entry=entry: self._blocks(entry),  # type: ignore[misc]
                success=success,
                length=entry.length,
                notes=notes,
            )

    def close(self) -> None:
        for video in self._videos.values():
            video.close()
        self._videos.clear()
        self._rows.close()

    def _task(self, index: int, entry: Entry) -> str:
        if index not in self._tasks:
            where = f"{entry.data}: episode {entry.index}"
            raise UserError(f"{where} has task {index}, but {len(self._tasks)} tasks are listed: fetch meta/ again")
        return self._tasks[index]

    def _specs(self) -> tuple[dict[str, KeySpec], dict[str, str]]:
        """What each key holds, and why others are left out."""
        if self._info.video_keys and _TIMESTAMP not in self._info.features:
            raise UserError(f"{self._info.path}: features has videos but no {_TIMESTAMP}, which says when frames are")
        specs: dict[str, KeySpec] = {}
        left_out: dict[str, str] = {}
        several = any(len(entry.tasks) > 1 for entry in self._entries)
        for key, feature in self._info.features.items():
            if key in _COUNTERS or (key == _TASK_INDEX and not several):
                continue
            if feature.dtype == "video":
                specs[key] = self._video_spec(key, feature)
            elif feature.dtype == "image":
                specs[key] = self._image_spec(key)
            elif feature.number is not None:
                shape = () if feature.shape == (1,) else feature.shape
                specs[key] = KeySpec(feature.dtype, shape, names=feature.names)
            else:
                left_out[key] = f"{feature.dtype} is no array of numbers"
        if not specs:
            raise UserError(f"{self._info.path}: no feature can be imported: {left_out}")
        return specs, left_out

    def _video_spec(self, key: str, feature: Feature) -> KeySpec:
        video = self._video(key, self._entries[0].clips[key].path)
        if feature.is_depth and video.pixel_format.startswith("gray"):
            return KeySpec("uint16", video.frame_shape)
        return KeySpec("uint8", video.frame_shape, codec="jpeg")

    def _image_spec(self, key: str) -> KeySpec:
        entry = self._entries[0]
        data = image_bytes(next(self._rows.batches(entry)), key, self._info.root, str(entry.data))[0]
        image = decode_image(data, where=f"{entry.data}: {key}, first row")
        lossy = is_lossy(data) and image.ndim == 3 and image.shape[2] == 3
        return KeySpec(str(image.dtype), image.shape, codec="jpeg" if lossy else "zstd")

    def _video(self, key: str, path: Path) -> VideoFile:
        """The opened file of a camera; only one at a time stays open."""
        video = self._videos.get(key)
        if video is None or video.path != path:
            if video is not None:
                self._videos.pop(key).close()
            video = VideoFile(path, threads=decoding_threads())
            if self._info.features[key].is_depth and video.pixel_format.startswith("gray"):
                video.close()
                video = VideoFile(path, depth=True)
            self._videos[key] = video
        return video

    def _blocks(self, entry: Entry) -> Iterator[Block]:
        first = 0
        for batch in self._rows.batches(entry):
            self._rows.check(entry, batch, first)
            first += batch.num_rows
            files: dict[str, list[bytes | None]] = {}
            yield EncodedBlock(
                {key: self._array(key, spec, entry, batch, files) for key, spec in self.keys.items()}, files
            )

    def _array(self, key: str, spec: KeySpec, entry: Entry, batch: Any, files: dict[str, list[bytes | None]]) -> Frames:
        """The frames of a key; what image files they are from comes into `files`."""
        dtype = self._info.features[key].dtype
        where = f"{entry.data}: {key} of episode {entry.index}"
        if dtype == "video":
            return self._frames(key, spec, entry, batch)
        if dtype != "image":
            return column_array(batch.column(key), spec, where)
        frames, files[key] = np.empty((batch.num_rows, *spec.shape), spec.dtype), []
        for index, data in enumerate(image_bytes(batch, key, self._info.root, where)):
            picture = decode_picture(data, where=where)
            image = picture.pixels
            if image.shape != spec.shape or image.dtype != spec.dtype:
                found = KeySpec(str(image.dtype), image.shape).describe()
                raise UserError(f"{where}: an image is {found}, the first one was {spec.describe()}: split the data")
            frames[index] = image
            files[key].append(picture.file)
        return frames

    def _frames(self, key: str, spec: KeySpec, entry: Entry, batch: Any) -> Frames:
        clip = entry.clips[key]
        video = self._video(key, clip.path)
        if video.frame_shape != spec.shape:
            raise UserError(f"{clip.path}: frames are {list(video.frame_shape)}, in the first file {list(spec.shape)}")
        stamps = column_array(batch.column(_TIMESTAMP), KeySpec("float64", ()), f"{entry.data}: {_TIMESTAMP}")
        rounding = float(np.spacing(np.float32(stamps.max(initial=0.0))))  # timestamps are float32
        return video.frames_at(clip.start_s + stamps, tolerance_s=self._tolerance_s + rounding)


def _episode_number(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int | np.integer):
        raise UsageError(f"episodes must be whole numbers such as [0, 1, 2], got {number!r}")
    return int(number)
