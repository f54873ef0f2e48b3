"""Writes the files of a LeRobotDataset v3.0, an episode at a time, some frames of it at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.files import write_json
from embodied.datasets.episode_source import BLOCK_BYTES
from embodied.datasets.exporters.lerobot_columns import DEFAULTS, TASK_INDEX, TIMESTAMP, Column, schema
from embodied.datasets.exporters.lerobot_files import (
    DATA_PATH,
    EPISODES_PATH,
    VIDEO_PATH,
    EpisodeFiles,
    Numbering,
    RowFiles,
    VideoFiles,
    write_tasks,
)
from embodied.datasets.exporters.lerobot_tasks import EpisodeTasks
from embodied.datasets.store.episode_index import EpisodeInfo
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.store.running_statistics import EpisodeStatistics, RunningStatistics, statistics_shape

_VERSION = "v3.0"
_MOST_FRAMES = 1024  # in a block
_CODEC_NAMES = {"libx264": "h264", "libsvtav1": "av1"}


class LeRobotFolder:
    """A dataset that is being written: `add` its episodes in order, then `finish`.

    Args:
        store: where frames come from.
        root: an empty or missing folder.
        columns: besides LeRobot's own.
        tasks: of the store.
        limits: `data_files_size_in_mb`, `video_files_size_in_mb` and `chunks_size`.
        encoder: `codec`, `crf` and `gop` of a `VideoWriter`.
    """

    def __init__(
        self,
        store: EpisodeStore,
        root: Path,
        *,
        columns: Sequence[Column],
        tasks: EpisodeTasks,
        limits: Mapping[str, float],
        encoder: Mapping[str, Any],
    ) -> None:
        self._store, self._root, self._tasks = store, root, tasks
        self._limits, self._encoder = limits, encoder
        defaults = [Column(name, None, spec, "number") for name, spec in DEFAULTS.items()]
        self._columns = {column.name: column for column in (*columns, *defaults)}
        self._totals: dict[str, RunningStatistics] = {}
        self._in_rows = {name: column for name, column in self._columns.items() if column.kind != "video"}
        self._rows = RowFiles(self._numbering(DATA_PATH, "data_files_size_in_mb"), schema(self._in_rows))
        self._episodes = EpisodeFiles(self._numbering(EPISODES_PATH, "data_files_size_in_mb"))
        self._videos = {}
        for name, column in self._columns.items():
            if column.kind == "video":
                numbering = self._numbering(VIDEO_PATH.replace("{video_key}", name), "video_files_size_in_mb")
                self._videos[name] = VideoFiles(numbering, shape=column.spec.shape, fps=store.fps, encoder=encoder)
        frame_bytes = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in store.keys.values())
        self._block = max(1, min(_MOST_FRAMES, BLOCK_BYTES // frame_bytes))

    def _numbering(self, template: str, size: str) -> Numbering:
        chunks_size = int(self._limits["chunks_size"])
        return Numbering(self._root, template, megabytes=self._limits[size], chunks_size=chunks_size)

    def add(self, info: EpisodeInfo) -> None:
        """Write one episode."""
        tasks = self._tasks.of(info)
        row = self._begin(info, tasks)
        counted = {name: column for name, column in self._columns.items() if column.has_statistics}
        counting = {name: EpisodeStatistics(column.key or name, column.spec) for name, column in counted.items()}
        for arrays in self._blocks(info, tasks):
            for name, statistics in counting.items():
                statistics.add(arrays[name])
            for name, video in self._videos.items():
                video.write(arrays[name])
            self._rows.write({name: column.arrow_array(arrays[name]) for name, column in self._in_rows.items()})
        self._rows.end()
        for name, statistics in counting.items():
            found = statistics.result()
            assert found is not None, name
            self._totals[name] = self._totals[name].merged(found) if name in self._totals else found
            summary = self._summary(name, found, info.length)
            row |= {f"stats/{name}/{kind}": value for kind, value in summary.items()}
        self._episodes.add(row)

    def _begin(self, info: EpisodeInfo, tasks: np.ndarray) -> dict[str, Any]:
        """Choose the episode's files; what its row of metadata says of them."""
        chunk, file = self._rows.begin(info.length)
        row: dict[str, Any] = {
            "episode_index": info.index,
            "tasks": [self._tasks.texts[index] for index in dict.fromkeys(tasks.tolist())],
            "length": info.length,
            "data/chunk_index": chunk,
            "data/file_index": file,
            "dataset_from_index": info.start,
            "dataset_to_index": info.start + info.length,
        }
        for name, video in self._videos.items():
            chunk, file, start = video.begin(info.length)
            row[f"videos/{name}/chunk_index"], row[f"videos/{name}/file_index"] = chunk, file
            row[f"videos/{name}/from_timestamp"] = start
            row[f"videos/{name}/to_timestamp"] = start + info.length / self._store.fps
        return row

    def _blocks(self, info: EpisodeInfo, tasks: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
        """The episode's arrays by the dataset's names, some frames at a time."""
        for first in range(0, info.length, self._block):
            last = min(first + self._block, info.length)
            frames = np.arange(first, last)
            arrays: dict[str, np.ndarray] = {
                TIMESTAMP: (frames / self._store.fps).astype(np.float32),
                "frame_index": frames,
                "episode_index": np.full(len(frames), info.index),
                "index": frames + info.start,
                TASK_INDEX: tasks[first:last],
            }
            for name, column in self._columns.items():
                if column.key is not None:
                    arrays[name] = self._store.read(column.key, info.start + first, info.start + last)
                elif name not in arrays:  # next.success, which only an episode's end tells
                    arrays[name] = (frames == info.length - 1) & bool(info.success)
            yield arrays

    def _summary(self, name: str, found: RunningStatistics, frames: int) -> dict[str, Any]:
        """Lists as lerobot has them: images in [0, 1] with the shape [C, 1, 1], vectors and scalars flat."""
        column = self._columns[name]
        shape = statistics_shape(column.key or name, column.spec)
        summary = found.summary(shape)
        if column.kind != "number":
            scale = 255.0 if column.spec.dtype == "uint8" else 1.0
            summary = {kind: (value / scale).reshape(-1, 1, 1) for kind, value in summary.items()}
        return {kind: np.atleast_1d(value).tolist() for kind, value in summary.items()} | {"count": [frames]}

    def finish(self) -> None:
        """Complete all files and write what describes them."""
        self._rows.close()
        for video in self._videos.values():
            video.close()
        self._episodes.close()
        store, meta = self._store, self._root / "meta"
        write_tasks(meta / "tasks.parquet", self._tasks.texts)
        totals = self._totals.items()
        write_json(meta / "stats.json", {name: self._summary(name, found, store.num_frames) for name, found in totals})
        fps = int(store.fps) if store.fps == int(store.fps) else store.fps
        info = {
            "codebase_version": _VERSION,
            "robot_type": store.robot or None,
            "total_episodes": len(store),
            "total_frames": store.num_frames,
            "total_tasks": len(self._tasks.texts),
            **self._limits,
            "fps": fps,
            "splits": {"train": f"0:{len(store)}"},
            "data_path": DATA_PATH,
            "video_path": VIDEO_PATH if self._videos else None,
            "features": {name: self._feature(column, fps) for name, column in self._columns.items()},
        }
        write_json(meta / "info.json", info)

    def _feature(self, column: Column, fps: float) -> dict[str, Any]:
        feature = column.feature()
        if column.kind != "video":
            return feature
        height, width, channels = column.spec.shape
        info = {
            "video.height": height,
            "video.width": width,
            "video.codec": _CODEC_NAMES[self._encoder["codec"]],
            "video.pix_fmt": self._videos[column.name].pixel_format,
            "video.is_depth_map": False,
            "video.fps": fps,
            "video.channels": channels,
            "has_audio": False,
        }
        return {**feature, "info": info}

    def abandon(self) -> None:
        """Let go of files that an error left open."""
        for video in self._videos.values():
            video.abandon()
        self._rows.close()
