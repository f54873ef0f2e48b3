"""Reads the samples of WebDataset shards: single frames, or clips of video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EncodedBlock
from embodied.datasets.files.encoded_images import Picture
from embodied.datasets.files.tar_files import TarFile, TarMember
from embodied.datasets.importers.webdataset_clips import clip_blocks, clip_specs
from embodied.datasets.importers.webdataset_fields import (
    SampleField,
    decode_field,
    decode_frame,
    fitted,
    frame_spec,
)
from embodied.datasets.importers.webdataset_shards import Sample
from embodied.datasets.store.episode_index import KeySpec


class SampleReader:
    """The values of samples, each found by a row: int64 [1 + 2 F], number of the shard, start and size of F fields.

    Args:
        files: the shards.
        fields: of the samples.
        size: pixels that colour pictures and videos are resized to.
    """

    def __init__(self, files: list[Path], fields: list[SampleField], *, size: int | None) -> None:
        self._files, self._fields, self._size = files, fields, size
        self.clips = any(field.kind == "video" for field in fields)
        self._open: tuple[int, TarFile] | None = None

    def close(self) -> None:
        """Close the shard that was read last."""
        if self._open is not None:
            self._open[1].close()
            self._open = None

    def row(self, number: int, sample: Sample) -> np.ndarray:
        """Where a sample is; start and size are -1 for a field it has not."""
        members = [sample.members.get(field.ending) for field in self._fields]
        spans = [(member.start, member.size) if member else (-1, -1) for member in members]
        return np.array([number, *(value for span in spans for value in span)], np.int64)

    def specs(self, row: np.ndarray, where: str) -> tuple[float | None, dict[str, KeySpec]]:
        """The rate of a sample if it is a clip that says so, and its keys.

        Raises:
            UserError: it is damaged.
        """
        if self.clips:
            videos, arrays = self._clip_parts(row, where)
            return clip_specs(videos, arrays, size=self._size, where=where)
        specs: dict[str, KeySpec] = {}
        for field, data in self._files_of(row, where):
            for name, array in decode_field(field, data, where=f".{field.ending} of {where}").items():
                if name in specs:
                    raise UserError(f"{where} has two values called {name}: options.exclude=[{field.ending}]")
                spec = frame_spec(array, data)
                specs[name] = replace(spec, shape=fitted(array, spec, self._size).shape)
        return None, specs

    def blocks(self, origin: str, rows: np.ndarray, keys: Mapping[str, KeySpec], fps: float) -> Iterator[Block]:
        """The frames of the samples at `rows` [N, 1 + 2 F], or of the one clip there.

        Raises:
            UserError: a sample is damaged, or has other values than `keys` says.
        """
        try:
            yield from self._clip(origin, rows[0], keys, fps) if self.clips else self._frames(origin, rows, keys)
        finally:
            if self._open is not None and not self._open[1].compressed:  # gzip would have to start over
                self.close()

    def _frames(self, origin: str, rows: np.ndarray, keys: Mapping[str, KeySpec]) -> Iterator[Block]:
        frame_bytes = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in keys.values())
        most = max(1, BLOCK_BYTES // frame_bytes)
        for start in range(0, len(rows), most):
            numbers = range(start, min(start + most, len(rows)))
            frames = [self._frame(rows[index], keys, f"frame {index} of {origin}") for index in numbers]
            pixels = {name: np.stack([frame[name].pixels for frame in frames]) for name in keys}
            yield EncodedBlock(pixels, {name: [frame[name].file for frame in frames] for name in keys})

    def _frame(self, row: np.ndarray, keys: Mapping[str, KeySpec], where: str) -> dict[str, Picture]:
        frame: dict[str, Picture] = {}
        for field, data in self._files_of(row, where):
            place = f".{field.ending} of {where}"
            if field.kind == "image":
                found = {field.name: decode_frame(data, where=place)}
            else:
                found = {name: Picture(array) for name, array in decode_field(field, data, where=place).items()}
            for name, value in found.items():
                if name in keys:
                    file = value.file if self._size is None else None
                    frame[name] = Picture(fitted(value.pixels, keys[name], self._size), file)
        _require_alike({name: value.pixels for name, value in frame.items()}, keys, where)
        return frame

    def _clip(self, origin: str, row: np.ndarray, keys: Mapping[str, KeySpec], fps: float) -> Iterator[Block]:
        videos, arrays = self._clip_parts(row, origin)
        arrays = {name: array for name, array in arrays.items() if name in keys}
        videos = {name: data for name, data in videos.items() if name in keys}
        for block in clip_blocks(videos, arrays, fps=fps, size=self._size, where=origin):
            _require_alike({name: array[0] for name, array in block.items()}, keys, origin)
            yield block

    def _clip_parts(self, row: np.ndarray, where: str) -> tuple[dict[str, bytes], dict[str, np.ndarray]]:
        videos: dict[str, bytes] = {}
        arrays: dict[str, np.ndarray] = {}
        for field, data in self._files_of(row, where):
            if field.kind == "video":
                videos[field.name] = data
            else:
                found = decode_field(field, data, where=f".{field.ending} of {where}")
                arrays |= {name: array for name, array in found.items() if array.ndim}
        return videos, arrays

    def _files_of(self, row: np.ndarray, where: str) -> Iterator[tuple[SampleField, bytes]]:
        """The fields that have arrays and their bytes, in the order of the shard."""
        spans = row[1:].reshape(-1, 2)
        for index in np.argsort(spans[:, 0], kind="stable"):
            field, (start, size) = self._fields[index], spans[index].tolist()
            if field.kind == "text" or start < 0:
                continue
            yield field, self._shard(int(row[0])).read(TarMember(f".{field.ending} of {where}", start, size))

    def _shard(self, number: int) -> TarFile:
        if self._open is None or self._open[0] != number:
            self.close()
            self._open = (number, TarFile(self._files[number]))
        return self._open[1]


def _require_alike(frame: Mapping[str, np.ndarray], keys: Mapping[str, KeySpec], where: str) -> None:
    for name, spec in keys.items():
        array = frame.get(name)
        if array is None:
            raise UserError(f"{where} has no {name}, unlike the first sample: leave it out (options.exclude=[{name}])")
        if (str(array.dtype), array.shape) != (spec.dtype, spec.shape):
            found = KeySpec(str(array.dtype), array.shape).describe()
            hint = (
                "bring pictures to one size (options.size=<pixels>)"
                if spec.shape[2:] == (3,)
                else f"options.exclude=[{name}]"
            )
            raise UserError(f"{name} of {where} is {found}, in the first sample {spec.describe()}: {hint}")
