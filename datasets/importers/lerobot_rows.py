"""The rows of a LeRobotDataset's episodes in its data files, found, checked and read in order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.parquet_files import ParquetRows, arrow_errors, column_array, read_columns
from embodied.datasets.importers.lerobot_metadata import Entry, Info
from embodied.datasets.store.episode_index import KeySpec

_EPISODE, _FRAME = "episode_index", "frame_index"
_INT = KeySpec("int64", ())


class EpisodeRows:
    """Reads episodes from the data files, one of which is open at a time."""

    def __init__(self, info: Info, *, batch_rows: int) -> None:
        self.batch_rows = batch_rows
        self._columns = [key for key, feature in info.features.items() if feature.number or feature.dtype == "image"]
        self._rows: ParquetRows | None = None
        self._places: tuple[Path, dict[int, tuple[int, int]]] | None = None
        self._small: tuple[Path, dict[str, np.ndarray]] | None = None

    def close(self) -> None:
        if self._rows is not None:
            self._rows.close()
            self._rows = None

    def batches(self, entry: Entry) -> Iterator[Any]:
        """The episode's rows as Arrow record batches.

        Raises:
            UserError: its file is missing or damaged, or does not hold the rows that the metadata promise.
        """
        start, stop = self._place(entry)
        if self._rows is None or self._rows.path != entry.data or self._rows.batch_rows != self.batch_rows:
            self.close()
            self._rows = ParquetRows(entry.data, self._columns, batch_rows=self.batch_rows)
        yield from self._rows.batches(start, stop)

    def column(self, entry: Entry, name: str) -> np.ndarray:
        """One small column [T] of the episode."""
        if self._small is None or self._small[0] != entry.data:
            self._small = (entry.data, {})
        columns = self._small[1]
        if name not in columns:
            columns[name] = _column(entry.data, name)
        start, stop = self._place(entry)
        return columns[name][start:stop]

    def check(self, entry: Entry, batch: Any, first: int) -> None:
        """Check that the batch holds the episode's frames from `first` on.

        Raises:
            UserError: a frame is missing or out of order.
        """
        if _FRAME not in batch.schema.names:
            return
        found = column_array(batch.column(_FRAME), _INT, f"{entry.data}: {_FRAME}")
        expected = np.arange(first, first + len(found))
        if wrong := np.flatnonzero(found != expected).tolist():
            raise UserError(
                f"{entry.data}: episode {entry.index} has {_FRAME} {found[wrong[0]]} where {expected[wrong[0]]} was "
                "expected: a frame is missing or out of order; fetch the file again"
            )

    def _place(self, entry: Entry) -> tuple[int, int]:
        """The episode's first row in its file, and the one behind its last."""
        if self._places is None or self._places[0] != entry.data:
            self._places = (entry.data, _places(entry.data))
        start, stop = self._places[1].get(entry.index, (0, 0))
        if stop - start != entry.length:
            raise UserError(
                f"{entry.data} holds {stop - start} frames of episode {entry.index}, the metadata promise "
                f"{entry.length}: fetch the dataset again"
            )
        return start, stop


def image_bytes(batch: Any, key: str, root: Path, where: str) -> list[bytes]:
    """The image files in a column: embedded, or beside the dataset by a path inside its folder.

    Raises:
        UserError: a row has neither.
    """
    column = batch.column(key)
    names = {field.name for field in column.type} if str(column.type).startswith("struct") else set()
    if "bytes" not in names:
        raise UserError(f"{where}: {key} holds {column.type}, expected images: correct its dtype in info.json")
    found = []
    with arrow_errors(where):
        rows = column.to_pylist()
    for row in rows:
        data, name = (row or {}).get("bytes"), (row or {}).get("path")
        if not data and isinstance(name, str) and name:
            data = _file_bytes(root, name, where)
        if not data:
            raise UserError(f"{where}: a row of {key} has no image: fetch the file again")
        found.append(data)
    return found


def _file_bytes(root: Path, name: str, where: str) -> bytes:
    parts = PurePosixPath(name).parts
    path = root.joinpath(*parts)
    if name.startswith("/") or ".." in parts or "\0" in name or not path.is_file():
        raise UserError(f"{where}: the image {name!r} is not in the dataset's folder: fetch it again")
    return path.read_bytes()


def _column(path: Path, name: str) -> np.ndarray:
    where, table = f"{path}: {name}", read_columns(path, [name])
    chunks = [column_array(chunk, _INT, where) for chunk in _integers(table.column(name)).chunks]
    return np.concatenate(chunks) if chunks else np.empty(0, np.int64)


def _integers(column: Any) -> Any:
    return column.cast("int64") if str(column.type) == "bool" else column


def _places(path: Path) -> dict[int, tuple[int, int]]:
    """First row and end of each episode in a data file.

    Raises:
        UserError: the rows of an episode do not lie together.
    """
    column = _column(path, _EPISODE)
    edges = np.flatnonzero(np.diff(column)) + 1
    starts, stops = np.concatenate([[0], edges]), np.concatenate([edges, [len(column)]])
    places: dict[int, tuple[int, int]] = {}
    for start, stop in zip(starts.tolist(), stops.tolist(), strict=True):
        if stop > start and places.setdefault(int(column[start]), (start, stop)) != (start, stop):
            raise UserError(f"{path}: the rows of episode {column[start]} do not lie together: fetch the file again")
    return places
