"""The episodes of a Minari dataset in its HDF5 format: groups `episode_<k>` of `main_data.hdf5`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.episode_source import Block, EncodedBlock
from embodied.datasets.files.encoded_images import decode_image, decode_picture
from embodied.datasets.files.hdf5_files import (
    attributes,
    child,
    frame_spec,
    hdf5_errors,
    import_h5py,
    open_hdf5,
    require_stored,
    subgroup,
    tree,
)
from embodied.datasets.importers.foreign_keys import Found, frames_per_block
from embodied.datasets.importers.minari_layout import JPEG, with_observation
from embodied.datasets.store.episode_index import KeySpec

FILE_NAME = "main_data.hdf5"
_GROUP = re.compile(r"episode_([0-9]{1,18})")
_INDEX = re.compile(r"(^|\.)_index_([0-9]+)")  # an element of a tuple


class Hdf5Episodes:
    """Implements `minari_layout.Episodes`."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE_NAME
        self._file = open_hdf5(self._path)

    def close(self) -> None:
        self._file.close()

    def numbers(self) -> list[int]:
        with hdf5_errors(self._path, "reading its list of episodes"):
            return sorted(int(match[1]) for match in map(_GROUP.fullmatch, self._file) if match)

    def metadata(self, episode: int) -> dict[str, Any]:
        with hdf5_errors(self._path, f"reading episode_{episode}"):
            nested: dict[str, Any] = {}
            for name, value in attributes(self._group(episode)).items():
                *parents, last = name.split("/")  # options/level
                inner = nested
                for parent in parents:
                    inner = inner.setdefault(parent, {})
                inner[last] = value
            return nested

    def length(self, episode: int) -> int:
        with hdf5_errors(self._path, f"reading episode_{episode}"):
            rewards = child(self._group(episode), "rewards")
            if rewards is None or not rewards.shape or rewards.shape[0] < 1:
                raise UserError(f"{self._path}: episode_{episode} has no rewards, so no steps: leave it out")
            return int(rewards.shape[0])

    def specs(self, episode: int) -> Found:
        length = self.length(episode)
        with hdf5_errors(self._path, f"reading episode_{episode}"):
            return {name: self._spec(name, data, length) for name, data in self._arrays(episode).items()}

    def blocks(self, episode: int, keys: Mapping[str, KeySpec]) -> Iterator[Block]:
        length, step = self.length(episode), frames_per_block(keys)
        with hdf5_errors(self._path, f"reading episode_{episode}"):
            arrays = self._arrays(episode)
            for name in keys:
                require_stored(arrays[name])
        for start in range(0, length, step):
            stop = min(start + step, length)
            with hdf5_errors(self._path, f"reading episode_{episode}"):
                found = {name: self._frames(arrays[name], spec, start, stop) for name, spec in keys.items()}
            yield EncodedBlock(
                {name: frames for name, (frames, _) in found.items()},
                {name: files for name, (_, files) in found.items()},
            )

    def column(self, episode: int, name: str) -> list[Any]:
        with hdf5_errors(self._path, f"reading episode_{episode}"):
            data = self._arrays(episode).get(name)
            if data is None or data.ndim != 1:
                return []
            require_stored(data)
            text = import_h5py().check_string_dtype(data.dtype)
            values: list[Any] = (data.asstr() if text else data)[:].tolist()
            return values

    def _group(self, episode: int) -> Any:
        return subgroup(self._file, f"episode_{episode}")

    def _arrays(self, episode: int) -> dict[str, Any]:
        found = tree(self._group(episode))
        return {_INDEX.sub(r"\1\2", name): data for name, data in found.items()}

    def _spec(self, name: str, data: Any, length: int) -> KeySpec | str:
        rows = (length, length + 1) if with_observation(name) else (length,)
        if not data.shape or data.shape[0] not in rows:
            return f"{data.dtype.name} {list(data.shape or ())} for {length} steps"
        if _is_bytes(data) and bytes(data[0][: len(JPEG)]) == JPEG:
            image = decode_image(bytes(data[0]), where=f"{self._path}: {data.name}[0]")
            return KeySpec("uint8", image.shape, codec="jpeg" if image.ndim == 3 else "zstd")
        return frame_spec(data)

    def _frames(self, data: Any, spec: KeySpec, start: int, stop: int) -> tuple[np.ndarray, list[bytes | None]]:
        """[stop - start, ...], and the files that images were and a store can keep."""
        if data.shape[1:] == spec.shape and data.dtype.kind != "O":
            return np.asarray(data[start:stop], dtype=spec.dtype), [None] * (stop - start)
        frames, files = np.empty((stop - start, *spec.shape), np.uint8), list[bytes | None]()
        for row in range(start, stop):
            where = f"{self._path}: {data.name}[{row}]"
            picture = decode_picture(bytes(data[row]), where=where)
            image = picture.pixels
            if image.shape != spec.shape:
                raise UserError(f"{where} is an image of {list(image.shape)}, and the first of {list(spec.shape)}")
            frames[row - start] = image
            files.append(picture.file)
        return frames, files


def _is_bytes(data: Any) -> bool:
    """Whether a row may be an encoded image: uint8 of any length, or of one length if all happen to have it."""
    variable = import_h5py().check_vlen_dtype(data.dtype)
    return bool(variable == np.uint8) or (data.dtype == np.uint8 and data.ndim == 2)
