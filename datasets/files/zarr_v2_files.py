"""Arrays of zarr version 2 in a folder or a zip file, read without trust in what they say of themselves.

zarr-python reads this version too. It is not used here because it runs whatever codec an array names, allocates
whatever size a chunk claims, and takes a millisecond per chunk, of which these files have one per image.
"""

from __future__ import annotations

import logging
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.foreign_json import parse_object
from embodied.datasets.files.zarr_v2_codecs import CODECS, check_available, decode_chunk, is_image

_LARGEST_CHUNK = 256 << 20  # bytes
_MOST_PIECES = 4096  # chunks in which a frame may be cut
_LARGEST_METADATA = 1 << 20  # bytes
_ARRAY = ".zarray"
_THREADS = 4
# What codecs raise on damaged chunks, and zipfile on damaged archives, depends on where the damage is.
_DAMAGE = (
    *(OSError, ValueError, TypeError, LookupError, RuntimeError, EOFError, ArithmeticError, MemoryError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)
_log = logging.getLogger(__name__)


class Files(Protocol):
    """Where the files of a zarr hierarchy are; names have slashes."""

    path: Path

    def arrays(self, group: str) -> list[str]:
        """The names of the arrays in a group, sorted."""
        ...

    def size(self) -> int:
        """Bytes of all files together, as they are stored."""
        ...

    def read(self, name: str, limit: int) -> bytes | None:
        """A file's content, None if there is no such file; ValueError if it has more than `limit` bytes."""
        ...

    def close(self) -> None: ...


class FolderFiles:
    """A zarr hierarchy in a folder."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def arrays(self, group: str) -> list[str]:
        folder = self.path / group
        return sorted(found.name for found in folder.iterdir() if (found / _ARRAY).is_file()) if folder.is_dir() else []

    def size(self) -> int:
        return sum(found.stat().st_size for found in self.path.rglob("*") if found.is_file())

    def read(self, name: str, limit: int) -> bytes | None:
        path = self.path / name
        if not path.is_file():
            return None
        if path.stat().st_size > limit:
            raise ValueError(f"{path.stat().st_size:,} bytes are too many")
        return path.read_bytes()

    def close(self) -> None:
        """Nothing stays open."""


class ZipFiles:
    """A zarr hierarchy in a zip file: at its root, or in the folder that holds the one file called `mark`."""

    def __init__(self, path: Path, *, mark: str) -> None:
        self.path = path
        with damage(str(path)):
            self._zip = zipfile.ZipFile(path)
            infos = {info.filename: info for info in self._zip.infolist()}
        marks = [name for name in infos if name == mark or name.endswith(f"/{mark}")]
        prefix = marks[0].removesuffix(mark) if len(marks) == 1 else ""
        self._infos = {name.removeprefix(prefix): info for name, info in infos.items() if name.startswith(prefix)}

    def arrays(self, group: str) -> list[str]:
        parts = (name.split("/") for name in self._infos)
        return sorted(part[1] for part in parts if len(part) == 3 and part[0] == group and part[2] == _ARRAY)

    def size(self) -> int:
        return sum(info.compress_size for info in self._infos.values())

    def read(self, name: str, limit: int) -> bytes | None:
        info = self._infos.get(name)
        if info is None:
            return None
        if info.file_size > limit:
            raise ValueError(f"{info.file_size:,} bytes are too many")
        return self._zip.read(info)

    def close(self) -> None:
        self._zip.close()


class ZarrArray:
    """One array, its first axis time.

    Args:
        files: of the hierarchy.
        name: of the array, such as `data/action`.

    Attributes:
        shape, dtype: in the byte order of this machine.
        compressor: its configuration, None if chunks are raw.

    Raises:
        UserError: the array does not exist, is damaged, or not made of numbers that a store can keep.
        MissingExtraError: its codec needs imagecodecs.
    """

    def __init__(self, files: Files, name: str) -> None:
        self._files, self.name, self._where = files, name, f"{files.path}: {name}"
        with damage(f"{self._where}/{_ARRAY}"):
            text = files.read(f"{name}/{_ARRAY}", _LARGEST_METADATA)
        if text is None:
            raise UserError(f"{files.path} has no array {name}: it is not whole, or no zarr of version 2")
        metadata = parse_object(text, f"{self._where}/{_ARRAY}")
        self.shape = self._sizes(metadata, "shape", least=0)
        self._chunks = self._sizes(metadata, "chunks", least=1)
        self._stored, self.compressor = self._dtype(metadata), self._codec(metadata)
        self.dtype = self._stored.newbyteorder("=")
        self._order, self._separator = metadata.get("order", "C"), metadata.get("dimension_separator", ".")
        with damage(f"{self._where}: fill_value"):
            self._fill = np.array(metadata.get("fill_value") or 0).astype(self.dtype)
        if len(self._chunks) != len(self.shape) or not self.shape or self._separator not in (".", "/"):
            raise UserError(f"{self._where} has chunks {list(self._chunks)} for the shape {list(self.shape)}")
        row = self.dtype.itemsize * self._chunks[0] * prod(self.shape[1:])
        pieces = prod(-(-size // chunk) for size, chunk in zip(self.shape[1:], self._chunks[1:], strict=True))
        if max(row, self._size()) > _LARGEST_CHUNK or pieces > _MOST_PIECES:
            raise UserError(f"{self._where} has chunks {list(self._chunks)}, too large or too many: rewrite it")
        self._last: tuple[int, np.ndarray] | None = None
        self._told = False

    def read(self, start: int, stop: int) -> np.ndarray:
        """Rows `start` to `stop` [stop - start, ...], which must exist.

        Raises:
            UserError: a chunk is damaged; names it.
        """
        size = self._chunks[0]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        numbers = range(start // size, -(-stop // size))
        for number, rows in zip(numbers, self._decoded(numbers), strict=True):
            low, high = max(start, number * size), min(stop, (number + 1) * size)
            out[low - start : high - start] = rows[low - number * size : high - number * size]
            self._last = (number, rows)
        return out

    def _decoded(self, numbers: range) -> Iterator[np.ndarray]:
        if len(numbers) == 1:
            yield self._rows(numbers[0])
            return
        with ThreadPoolExecutor(_THREADS) as pool:
            yield from pool.map(self._rows, numbers)

    def _rows(self, number: int) -> np.ndarray:
        """All rows [chunk size, ...] of the chunks that begin at the same time."""
        if self._last is not None and self._last[0] == number:
            return self._last[1]
        frame, chunk = self.shape[1:], self._chunks[1:]
        if frame == chunk:
            return self._chunk((number, *(0 for _ in frame)))
        rows = np.empty((self._chunks[0], *frame), self.dtype)
        for index in product(*(range(-(-size // part)) for size, part in zip(frame, chunk, strict=True))):
            place = tuple(slice(i * part, (i + 1) * part) for i, part in zip(index, chunk, strict=True))
            part = rows[(slice(None), *place)]
            part[...] = self._chunk((number, *index))[tuple(slice(size) for size in part.shape)]
        return rows

    def _chunk(self, index: tuple[int, ...]) -> np.ndarray:
        key = f"{self.name}/{self._separator.join(map(str, index))}"
        with damage(f"{self._files.path}: {key}"):
            data = self._files.read(key, 2 * self._size() + _LARGEST_METADATA)
            if data is None:
                return self._absent(key)
            return decode_chunk(data, self.compressor, self._stored, self._chunks, order=self._order).astype(self.dtype)

    def _absent(self, key: str) -> np.ndarray:
        """zarr may leave away chunks that hold nothing but the fill value, but not those of pictures."""
        if is_image(self.compressor):
            raise UserError(f"{self._files.path}: {key} is missing: the copy is not whole, copy or download it again")
        if not self._told:
            self._told = True
            _log.warning("%s: chunk %s is not there, so its values are taken to be %s", self._where, key, self._fill)
        return np.full(self._chunks, self._fill)

    def _size(self) -> int:
        return self._stored.itemsize * prod(self._chunks)

    def _sizes(self, metadata: Mapping[str, Any], name: str, *, least: int) -> tuple[int, ...]:
        found = metadata.get(name)
        if not isinstance(found, list) or not all(type(size) is int and least <= size < 1 << 40 for size in found):
            raise UserError(f"{self._where}/{_ARRAY}: {name} must list whole numbers from {least}, got {found!r:.80}")
        return tuple(found)

    def _dtype(self, metadata: Mapping[str, Any]) -> np.dtype[Any]:
        found = metadata.get("dtype")
        try:
            dtype = np.dtype(found) if isinstance(found, str) else np.dtype(object)
        except (TypeError, ValueError):
            dtype = np.dtype(object)
        if dtype.kind not in "biuf" or dtype.itemsize > 8:
            raise UserError(f"{self._where} is of dtype {found!r:.80}: only numbers can be read")
        return dtype

    def _codec(self, metadata: Mapping[str, Any]) -> Mapping[str, Any] | None:
        if metadata.get("filters"):
            raise UserError(f"{self._where} has filters, which are not supported: write it without")
        found = metadata.get("compressor")
        if found is None:
            return None
        name = found.get("id") if isinstance(found, dict) else found
        if not isinstance(found, dict) or name not in CODECS:
            raise UserError(f"{self._where} is compressed with {name!r:.80}: supported are {', '.join(sorted(CODECS))}")
        check_available(found)
        return found


@contextmanager
def damage(where: str) -> Iterator[None]:
    """Turn what codecs and archives raise into one message."""
    try:
        yield
    except UserError:
        raise
    except _DAMAGE as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{where} is damaged ({reason}): copy or download it again") from error
