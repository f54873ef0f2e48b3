"""Parquet files read in bounded memory, and their columns as arrays; what is broken becomes one message."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from math import prod
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from embodied.core.errors import MissingExtraError, UserError
from embodied.datasets.store.episode_index import KeySpec

_READ_BYTES = 1 << 20  # of a column at once, where Arrow would read a row group's whole column


@cache
def arrow() -> tuple[ModuleType, ModuleType]:
    """`pyarrow` and `pyarrow.parquet`.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "lerobot") from error
    return pyarrow, pyarrow.parquet


@contextmanager
def arrow_errors(where: Path | str) -> Iterator[None]:
    """Turn what Arrow raises on a missing or broken file into one message, which begins with `where`."""
    pa, _ = arrow()
    try:
        yield
    except FileNotFoundError as error:
        raise UserError(f"{where} is missing: copy it there, or fetch the dataset again") from error
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{where} is damaged or no parquet file ({reason}): fetch it again") from error


class ParquetRows:
    """Rows of a file, meant to be asked for in order: going back means reading from a row group's start.

    Args:
        path: the file.
        columns: their names; None for all.
        batch_rows: at most so many rows come at once.

    Raises:
        UserError: the file is missing, broken, or lacks a column; also from `batches`.
    """

    def __init__(self, path: Path, columns: Sequence[str] | None, *, batch_rows: int) -> None:
        self.path = path
        self.batch_rows = batch_rows
        with arrow_errors(path):
            self._file = arrow()[1].ParquetFile(path, buffer_size=_READ_BYTES, pre_buffer=False)
            groups = [self._file.metadata.row_group(index).num_rows for index in range(self._file.num_row_groups)]
            self.schema = self._file.schema_arrow
        self._group_starts = np.cumsum([0, *groups])
        self.num_rows = int(self._group_starts[-1])
        self.columns = list(self.schema.names if columns is None else columns)
        if missing := [name for name in self.columns if name not in self.schema.names]:
            raise UserError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(self.schema.names)}")
        self._batches: Iterator[Any] = iter(())
        self._batch: Any = None
        self._first = 0  # the number of the current batch's first row

    def close(self) -> None:
        self._file.close()

    def batches(self, start: int, stop: int) -> Iterator[Any]:
        """Arrow record batches with rows `start` to `stop`, which must be in the file."""
        while start < stop:
            if self._batch is None or start < self._first or self._group_of(start) > self._group_of(self._first) + 1:
                self._rewind(start)
            while start >= self._first + self._batch.num_rows:
                self._first += self._batch.num_rows
                self._batch = self._next()
            piece = self._batch.slice(start - self._first, stop - start)
            start += piece.num_rows
            yield piece

    def _group_of(self, row: int) -> int:
        return int(np.searchsorted(self._group_starts, row, side="right")) - 1

    def _rewind(self, row: int) -> None:
        first = self._group_of(row)
        with arrow_errors(self.path):
            self._batches = self._file.iter_batches(
                self.batch_rows,
                row_groups=list(range(first, self._file.num_row_groups)),
                columns=self.columns,
                use_threads=False,
            )
        self._first, self._batch = int(self._group_starts[first]), self._next()

    def _next(self) -> Any:
        with arrow_errors(self.path):
            batch = next(self._batches, None)
        if batch is None:
            raise UserError(f"{self.path} ends before the {self.num_rows} rows it claims: fetch it again")
        return batch


def read_rows(path: Path, columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """The rows of a small file, each a dictionary of those columns; raises as `read_columns`."""
    table = read_columns(path, columns)
    with arrow_errors(path):
        return table.to_pylist()


def read_columns(path: Path, columns: Sequence[str] | None = None) -> Any:
    """An Arrow table with those columns of a small file, all of them if None.

    Raises:
        UserError: the file is missing, broken, or lacks a column.
    """
    pa, _ = arrow()
    rows = ParquetRows(path, columns, batch_rows=1 << 16)
    schema = pa.schema([rows.schema.field(name) for name in rows.columns])
    batches = list(rows.batches(0, rows.num_rows)) if rows.num_rows else []
    rows.close()
    return pa.Table.from_batches(batches, schema) if batches else schema.empty_table()


def column_array(column: Any, spec: KeySpec, where: str) -> np.ndarray:
    """[T, ...] of the spec's dtype and shape from an Arrow array of numbers or of (nested) lists of them.

    Args:
        column: of T rows.
        spec: numbers are converted if that changes no more than their precision.
        where: names file and column in messages.

    Raises:
        UserError: a row is empty, of another length, or not of numbers.
    """
    with arrow_errors(where):
        return _column_array(column, spec, where)


def _column_array(column: Any, spec: KeySpec, where: str) -> np.ndarray:
    values, count = _innermost(column), len(column)
    if values.null_count or column.null_count:
        raise UserError(f"{where}: a row has no value; drop the column, or fill in the gap")
    dtype = np.dtype(spec.dtype)
    try:
        source = np.dtype(values.type.to_pandas_dtype())
    except (NotImplementedError, TypeError):
        source = np.dtype(object)
    if not (np.can_cast(source, dtype, "same_kind") and source.kind in "biuf"):
        raise UserError(f"{where}: holds {column.type}, but {spec.describe()} was declared")
    if not _lengths_match(column, spec.shape) or len(values) != count * prod(spec.shape):
        raise UserError(f"{where}: a row is not of the declared shape {list(spec.shape)}")
    array = values.to_numpy(zero_copy_only=False).astype(dtype)
    return array.reshape(count, *spec.shape)


def _is_list(kind: Any) -> bool:
    types = arrow()[0].types
    return types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind)


def _storage(column: Any) -> Any:
    return column.storage if isinstance(column, arrow()[0].ExtensionArray) else column


def _innermost(column: Any) -> Any:
    column = _storage(column)
    while _is_list(column.type):
        column = column.flatten()
    return column


def _lengths_match(column: Any, shape: tuple[int, ...]) -> bool:
    """Whether each level of lists has one length, that of its axis; a scalar may stand for a list of one."""
    column, axes = _storage(column), list(shape)
    import pyarrow.compute

    while _is_list(column.type):
        if not axes:
            return False
        axis = axes.pop(0)
        lengths = pyarrow.compute.list_value_length(column)
        if column.null_count or (
            len(column) and pyarrow.compute.min_max(lengths).as_py() != {"min": axis, "max": axis}
        ):
            return False
        column = column.flatten()
    return prod(axes) == 1
