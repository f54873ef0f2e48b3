"""The zarr of diffusion_policy and UMI: arrays `data/<field>` of all episodes end to end, and where each one ends.

A folder, or a zip file (UMI's `.zarr.zip`). Fields keep names, dtypes and bits; images in JPEG XL or JPEG 2000 are
decoded. diffusion_policy's Push-T has images as float32 from 0 to 255, which the import turns to uint8 with
`float_images=255`. The format has neither rate nor task nor seeds.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.datasets.episode_source import Block, Format, SourceEpisode
from embodied.datasets.files.foreign_json import plain_json
from embodied.datasets.files.zarr_v2_codecs import is_lossy
from embodied.datasets.files.zarr_v2_files import Files, FolderFiles, ZarrArray, ZipFiles, damage
from embodied.datasets.importers.foreign_keys import LARGEST_FRAME, choose_keys, frames_per_block, names_to_exclude
from embodied.datasets.store.episode_checks import checked_fps
from embodied.datasets.store.episode_index import KeySpec

_ENDS = "meta/episode_ends"
_MOST_EPISODES = 10_000_000
_THINNEST = 1_000_000  # bytes of values per byte stored: more is a file that claims frames it has not


def _recognizes(path: Path) -> bool:
    if path.is_dir():
        return (path / _ENDS / ".zarray").is_file()
    if not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(f"{_ENDS}/.zarray") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return path.name.endswith(".zarr.zip")


FORMAT = Format("diffusion_policy_zarr", "the zarr of diffusion_policy and UMI, folder or .zarr.zip", _recognizes)


class ZarrSource:
    """Implements `EpisodeSource`."""

    def __init__(self, files: Files, *, fps: float, task: str, exclude: Sequence[str]) -> None:
        self._files, self._task = files, task
        self._ends = _episode_ends(files)
        self._arrays = {name: ZarrArray(files, f"data/{name}") for name in files.arrays("data")}
        found = {name: self._spec(name, array) for name, array in self._arrays.items()}
        where = str(files.path)
        self.keys, left_out = choose_keys(found, (), where=where, optional=lambda name: False, exclude=exclude)
        values = self._ends[-1] * sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in self.keys.values())
        if values > _THINNEST * files.size():
            raise UserError(f"{where} claims {self._ends[-1]:,} frames in {files.size():,} bytes: it is damaged")
        self.fps, self.robot = checked_fps(fps), ""
        codecs = plain_json({name: self._arrays[name].compressor for name in self.keys})
        self.provenance: dict[str, Any] = {"format": FORMAT.name, "left_out": left_out, "compressors": codecs}

    def __len__(self) -> int:
        return len(self._ends)

    def close(self) -> None:
        self._files.close()

    def episodes(self) -> Iterator[SourceEpisode]:
        for number, (start, stop) in enumerate(zip([0, *self._ends[:-1]], self._ends, strict=True)):
            yield SourceEpisode(
                origin=f"episode_{number:06d}",
                task=self._task,
                blocks=partial(self._blocks, start, stop),
                length=stop - start,
            )

    def _spec(self, name: str, array: ZarrArray) -> KeySpec | str:
        where, frames = f"{self._files.path}: data/{name}", self._ends[-1]
        if array.shape[0] != frames:
            raise UserError(
                f"{where} has {array.shape[0]} frames, and {_ENDS} ends at {frames}: one of them is damaged"
            )
        shape = array.shape[1:]
        if 0 in shape or array.dtype.itemsize * prod(shape) > LARGEST_FRAME:
            return f"frames of {list(shape)}"
        picture = array.dtype == np.uint8 and len(shape) == 3 and shape[2] == 3
        return KeySpec(array.dtype.name, shape, codec="jpeg" if picture and is_lossy(array.compressor) else "zstd")

    def _blocks(self, start: int, stop: int) -> Iterator[Block]:
        step = frames_per_block(self.keys)
        for first in range(start, stop, step):
            yield {name: self._arrays[name].read(first, min(first + step, stop)) for name in self.keys}


def open_source(path: Path, *, fps: float | None = None, task: str = "", exclude: Sequence[str] = ()) -> ZarrSource:
    """Open a zarr of diffusion_policy or UMI.

    Args:
        path: of the folder or zip file.
        fps: frames per second; needed.
        task: the instruction of all episodes.
        exclude: fields to leave out.

    Raises:
        UserError: it is damaged, or not of this format.
        UsageError: the rate is missing.
        MissingExtraError: images need imagecodecs, which is not installed.
    """
    path = Path(path)
    if fps is None:
        raise UsageError(
            f"{path}: the format does not record the rate: give it, as options.fps=10 for diffusion_policy's tasks "
            "(12.5 for its kitchen), options.fps=59.94 for UMI's GoPro"
        )
    if isinstance(fps, bool) or not isinstance(fps, int | float):
        raise UsageError(f"fps must be a number, got {fps!r}")
    if not path.exists():
        raise UserError(f"there is no file or folder at {path}")
    files: Files = FolderFiles(path) if path.is_dir() else ZipFiles(path, mark=f"{_ENDS}/.zarray")
    try:
        with damage(str(path)):
            return ZarrSource(files, fps=fps, task=str(task), exclude=names_to_exclude(exclude))
    except UserError:
        files.close()
        raise


def _episode_ends(files: Files) -> list[int]:
    array = ZarrArray(files, _ENDS)
    where = f"{files.path}: {_ENDS}"
    if array.dtype.kind not in "iu" or len(array.shape) != 1 or not 1 <= array.shape[0] <= _MOST_EPISODES:
        raise UserError(f"{where} must list where each episode ends, got {array.dtype} {list(array.shape)}")
    ends: list[int] = array.read(0, array.shape[0]).tolist()
    for number, (before, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end <= before:
            raise UserError(f"{where} must grow from episode to episode: episode {number} ends at {end} after {before}")
    return ends
