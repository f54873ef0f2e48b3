"""The numbered files of a LeRobotDataset: a file takes episodes until it would grow too large, then the next begins."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from embodied.datasets.files.parquet_files import arrow
from embodied.datasets.files.video_writer import VideoWriter

GROUP_BYTES = 64 << 20  # of an episode's rows: more become several row groups, so that they fit in memory
_EPISODES_AT_ONCE = 100
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"


class Numbering:
    """The place of the file that is being written: chunk and number, which begin at 0.

    Args:
        root: of the dataset.
        template: of paths below it.
        megabytes: a file of more than one episode is at most about so large.
        chunks_size: files per folder.
    """

    def __init__(self, root: Path, template: str, *, megabytes: float, chunks_size: int) -> None:
        self._root, self._template, self._chunks_size = root, template, chunks_size
        self._limit = megabytes * (1 << 20)
        self._count = 0

    @property
    def place(self) -> tuple[int, int]:
        return divmod(self._count, self._chunks_size)

    def is_full(self, *, size: int, frames: int, more: int) -> bool:
        """Whether a file of `size` bytes with `frames` frames should not take `more` frames."""
        return frames > 0 and size * (1 + more / frames) >= self._limit

    def next(self) -> None:
        self._count += 1

    def path(self) -> Path:
        """Of the file, in a folder that is made if need be."""
        chunk, file = self.place
        path = self._root / self._template.format(chunk_index=chunk, file_index=file)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class RowFiles:
    """Parquet files with one row group an episode, or several of `GROUP_BYTES` each."""

    def __init__(self, numbering: Numbering, schema: Any) -> None:
        self._numbering, self._schema = numbering, schema
        self._writer: Any = None
        self._rows: list[Any] = []
        self._frames = 0

    def begin(self, length: int) -> tuple[int, int]:
        """Chunk and number of the file that takes an episode of `length` frames."""
        if self._writer is not None:
            size = self._numbering.path().stat().st_size
            if self._numbering.is_full(size=size, frames=self._frames, more=length):
                self.close()
                self._numbering.next()
        if self._writer is None:
            _, pq = arrow()
            self._writer = pq.ParquetWriter(self._numbering.path(), self._schema, compression="snappy")
            self._frames = 0
        self._frames += length
        return self._numbering.place

    def write(self, columns: Mapping[str, Any]) -> None:
        """Add rows of the episode: Arrow arrays by column."""
        pa, _ = arrow()
        self._rows.append(pa.Table.from_arrays([columns[name] for name in self._schema.names], schema=self._schema))
        if sum(table.nbytes for table in self._rows) >= GROUP_BYTES:
            self.end()

    def end(self) -> None:
        """Complete the episode."""
        if self._rows:
            pa, _ = arrow()
            table = pa.concat_tables(self._rows)
            self._writer.write_table(table, row_group_size=len(table))
            self._rows = []

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class VideoFiles:
    """The videos of one camera: episodes one after the other."""

    def __init__(self, numbering: Numbering, *, shape: Sequence[int], fps: float, encoder: Mapping[str, Any]) -> None:
        self._numbering, self._shape, self._fps, self._encoder = numbering, shape, fps, encoder
        self._writer: VideoWriter | None = None
        self.pixel_format = ""

    def begin(self, length: int) -> tuple[int, int, float]:
        """Chunk and number of the file that takes an episode of `length` frames, and when in it the episode begins."""
        writer = self._writer
        if writer and self._numbering.is_full(size=writer.bytes, frames=writer.frames, more=length):
            self.close()
            self._numbering.next()
        if self._writer is None:
            height, width, _ = self._shape
            self._writer = VideoWriter(
                self._numbering.path(), height=height, width=width, fps=self._fps, **self._encoder
            )
            self.pixel_format = self._writer.pixel_format
        return *self._numbering.place, self._writer.frames / self._fps

    def write(self, frames: np.ndarray) -> None:
        """Add frames uint8 [T, H, W, 3] of the episode."""
        assert self._writer is not None
        self._writer.write(frames)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def abandon(self) -> None:
        """Let go of a file that is not to be completed."""
        if self._writer is not None:
            self._writer.abandon()
            self._writer = None


class EpisodeFiles:
    """meta/episodes: one row an episode, written some at a time."""

    def __init__(self, numbering: Numbering) -> None:
        self._numbering = numbering
        self._writer: Any = None
        self._pending: list[dict[str, Any]] = []
        self._written = 0

    def add(self, row: Mapping[str, Any]) -> None:
        if not self._pending and self._writer is not None:
            size = self._numbering.path().stat().st_size
            if self._numbering.is_full(size=size, frames=self._written, more=_EPISODES_AT_ONCE):
                self.close()
                self._numbering.next()
        chunk, file = self._numbering.place
        self._pending.append({**row, "meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file})
        if len(self._pending) == _EPISODES_AT_ONCE:
            self._flush()

    def close(self) -> None:
        self._flush()
        if self._writer is not None:
            self._writer.close()
            self._writer, self._written = None, 0

    def _flush(self) -> None:
        if not self._pending:
            return
        pa, pq = arrow()
        table = pa.Table.from_pylist(self._pending)
        if self._writer is None:
            self._writer = pq.ParquetWriter(self._numbering.path(), table.schema, compression="snappy")
        self._writer.write_table(table.cast(self._writer.schema))
        self._written += len(self._pending)
        self._pending = []


def write_tasks(path: Path, tasks: Sequence[str]) -> None:
    """meta/tasks.parquet: as pandas writes a table whose index is the tasks."""
    pa, pq = arrow()

    def column(name: str, pandas: str, numpy: str) -> dict[str, Any]:
        return {"name": name, "field_name": name, "pandas_type": pandas, "numpy_type": numpy, "metadata": None}

    pandas = {
        "index_columns": ["task"],
        "column_indexes": [{**column("", "unicode", "object"), "name": None, "field_name": None}],
        "columns": [column("task_index", "int64", "int64"), column("task", "unicode", "object")],
        "pandas_version": "2.2.0",
    }
    table = pa.table(
        {"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(list(tasks), pa.string())}
    )
    pq.write_table(table.replace_schema_metadata({"pandas": json.dumps(pandas)}), path)
