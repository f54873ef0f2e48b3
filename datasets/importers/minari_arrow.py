"""The episodes of a Minari dataset in its arrow and parquet formats: a folder `<k>` with one table each.

A table has T + 1 rows; the last one of actions, rewards and the like is padding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.episode_source import Block, EncodedBlock
from embodied.datasets.files.encoded_images import decode_image, decode_picture
from embodied.datasets.files.foreign_json import plain_json, read_object
from embodied.datasets.files.parquet_files import ParquetRows, arrow, column_array
from embodied.datasets.importers.foreign_keys import DTYPES, LARGEST_FRAME, Found, frames_per_block
from embodied.datasets.importers.minari_layout import JPEG, space_shape
from embodied.datasets.store.episode_index import KeySpec

_ROWS = 64  # of a table taken at once: their images are still compressed
_DEEPEST = 8


class ArrowEpisodes:
    """Implements `minari_layout.Episodes`; `spaces` has the serialised spaces of `observations` and `actions`."""

    def __init__(self, folder: Path, *, suffix: str, spaces: Mapping[str, Mapping[str, Any] | None]) -> None:
        arrow()
        self._folder, self._suffix, self._spaces = folder, suffix, spaces

    def close(self) -> None:
        """Nothing stays open."""

    def numbers(self) -> list[int]:
        try:
            names = [entry.name for entry in self._folder.iterdir() if entry.is_dir()]
        except OSError as error:
            raise UserError(f"{self._folder} cannot be read: {error.strerror or error}") from error
        return sorted(int(name) for name in names if name.isascii() and name.isdecimal() and len(name) < 19)

    def metadata(self, episode: int) -> dict[str, Any]:
        path = self._folder / str(episode) / "metadata.json"
        return dict(plain_json(read_object(path))) if path.exists() else {}

    def length(self, episode: int) -> int:
        steps = self.metadata(episode).get("total_steps")
        if steps is None:
            steps = sum(batch.num_rows for batch in self._batches(episode)) - 1
        if not isinstance(steps, int) or steps < 1:
            raise UserError(f"{self._folder / str(episode)} has {steps!r} steps: leave it out, or fetch it again")
        return steps

    def specs(self, episode: int) -> Found:
        first = next(iter(self._batches(episode)), None)
        if first is None or not first.num_rows:
            raise UserError(f"{self._folder / str(episode)} holds no rows; fetch it again")
        with _damage(self._folder / str(episode)):
            found = {name: self._spec(name, column, field) for name, column, field in _leaves(first)}
        return dict(sorted(found.items()))

    def blocks(self, episode: int, keys: Mapping[str, KeySpec]) -> Iterator[Block]:
        left, step = self.length(episode), frames_per_block(keys)
        for batch in self._batches(episode):
            for start in range(0, min(batch.num_rows, left), step):
                with _damage(self._folder / str(episode)):
                    piece = batch.slice(start, min(step, left - start))
                    columns = {name: column for name, column, _ in _leaves(piece)}
                    files: dict[str, list[bytes | None]] = {}
                    block = {
                        name: self._frames(episode, name, columns[name], spec, files) for name, spec in keys.items()
                    }
                yield EncodedBlock(block, files)
            left -= min(batch.num_rows, left)
        if left:
            raise UserError(f"{self._folder / str(episode)} lacks the last {left} of its steps: fetch it again")

    def column(self, episode: int, name: str) -> list[Any]:
        values: list[Any] = []
        for batch in self._batches(episode):
            with _damage(self._folder / str(episode)):
                found = next((column for other, column, _ in _leaves(batch) if other == name), None)
                if found is not None and arrow()[0].types.is_fixed_size_list(found.type) and found.type.list_size == 1:
                    found = found.flatten()  # how Minari stores one number per step
                values += [] if found is None else found.to_pylist()
        return values

    def _batches(self, episode: int) -> Iterator[Any]:
        """The rows of an episode, checked to be what they say they are: Arrow itself trusts files."""
        pa, _ = arrow()
        folder = self._folder / str(episode)
        files = sorted(folder.glob(f"*.{self._suffix}"))
        if not files:
            raise UserError(f"{folder} has no .{self._suffix} file: the dataset is not whole, fetch it again")
        for path in files:
            if self._suffix == "parquet":
                rows = ParquetRows(path, None, batch_rows=_ROWS)
                yield from rows.batches(0, rows.num_rows) if rows.num_rows else ()
                rows.close()
                continue
            with _damage(path), pa.memory_map(str(path)) as mapped:
                reader = pa.ipc.open_file(mapped)
                for index in range(reader.num_record_batches):
                    batch = reader.get_batch(index)
                    batch.validate(full=True)
                    for start in range(0, batch.num_rows, _ROWS):
                        yield batch.slice(start, _ROWS)

    def _spec(self, name: str, column: Any, field: Any) -> KeySpec | str:
        pa, _ = arrow()
        if pa.types.is_binary(column.type) and (column[0].as_py() or b"")[: len(JPEG)] == JPEG:
            image = decode_image(column[0].as_py(), where=f"{self._folder}: {name}")
            return KeySpec("uint8", image.shape, codec="jpeg" if image.ndim == 3 else "zstd")
        kind = column.type
        shape: tuple[int, ...] = ()
        if pa.types.is_fixed_size_list(kind):
            shape, kind = self._shape(name, field, kind.list_size), kind.value_type
        try:
            dtype = np.dtype(kind.to_pandas_dtype()).name
        except (NotImplementedError, TypeError):
            dtype = str(kind)
        if dtype not in DTYPES or 0 in shape or np.dtype(dtype).itemsize * prod(shape) > LARGEST_FRAME:
            return f"{column.type} is no array of numbers"
        return KeySpec(dtype, shape)

    def _shape(self, name: str, field: Any, size: int) -> tuple[int, ...]:
        """Of a frame that is stored flat: as the space, or else the column's own remark, says."""
        remark = (field.metadata or {}).get(b"shape")
        said = space_shape(self._spaces.get(name.split(".")[0]), name)
        if said is None and remark is not None and remark.replace(b",", b"").isdigit():
            said = tuple(int(part) for part in remark.split(b",") if part)
        elif said is None and remark == b"":
            said = ()
        return said if said is not None and prod(said) == size else (size,)

    def _frames(
        self, episode: int, name: str, column: Any, spec: KeySpec, files: dict[str, list[bytes | None]]
    ) -> np.ndarray:
        """The frames of a key; what image files they are from comes into `files`."""
        where = f"{self._folder / str(episode)}: {name}"
        if not arrow()[0].types.is_binary(column.type):
            return _numbers(column, spec, where)
        frames, files[name] = np.empty((len(column), *spec.shape), np.uint8), []
        for row, data in enumerate(column):
            picture = decode_picture(data.as_py() or b"", where=where)
            image = picture.pixels
            if image.shape != spec.shape:
                raise UserError(f"{where} has images of {list(image.shape)} and of {list(spec.shape)}")
            frames[row] = image
            files[name].append(picture.file)
        return frames


def _numbers(column: Any, spec: KeySpec, where: str) -> np.ndarray:
    size = prod(spec.shape)
    flat = KeySpec(spec.dtype, (size,) if arrow()[0].types.is_fixed_size_list(column.type) else ())
    return column_array(column, flat, where).reshape(len(column), *spec.shape)


def _leaves(batch: Any) -> Iterator[tuple[str, Any, Any]]:
    """Dotted name, column and field of everything in a table that is not a struct."""
    pa, _ = arrow()
    waiting = [(field.name, column, field, 0) for field, column in zip(batch.schema, batch.columns, strict=True)]
    while waiting:
        name, column, field, depth = waiting.pop(0)
        if not pa.types.is_struct(column.type):
            if name != "episode_id":
                yield name, column, field
        elif depth < _DEEPEST:
            inner = [column.type.field(index) for index in range(column.type.num_fields)]
            parts = zip(inner, column.flatten(), strict=True)
            waiting += [(f"{name}.{part.name}", values, part, depth + 1) for part, values in parts]


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    pa, _ = arrow()
    try:
        yield
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise UserError(f"{path} is damaged ({reason}): fetch it again") from error
