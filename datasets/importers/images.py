"""Folders of photographs, of the frames of films, or of depth images: one file is one frame.

Every folder that has pictures in it is an episode, in natural order (`frame10` after `frame9`); with `sequences=False`
every picture is one. What the pictures are decides the name of their key:

| files | key |
| --- | --- |
| 8-bit JPEG, PNG, WebP, BMP, TIFF, PPM; .npy of uint8 [H, W, 3] | observation.images.<camera> uint8 [H, W, 3] |
| 16-bit gray PNG and TIFF, float TIFF; .npy of uint16 or float32 [H, W] | observation.depth.<camera>, every bit kept |
| other bits: 16-bit colours, any other .npy | observation.raw.<camera>, every bit kept |

Pictures are turned upright as their EXIF data says. A folder holds one kind only; RAW files of cameras are not read.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EncodedBlock, EpisodeSource, Format, SourceEpisode
from embodied.datasets.files.encoded_images import Picture, as_rgb, as_square, decode_npy, decode_picture
from embodied.datasets.files.video_files import SUFFIXES as VIDEO_SUFFIXES
from embodied.datasets.importers.media_folders import holds_only, list_files, name_of, task_of
from embodied.datasets.key_casting import DEPTH_PREFIX, RAW_PREFIX
from embodied.datasets.store.episode_index import KeySpec

NPY = ".npy"
JPEG_SUFFIXES = frozenset({".jpg", ".jpeg"})
SUFFIXES = JPEG_SUFFIXES | {".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", NPY}
ON_ERROR = ("raise", "skip")
_LARGEST_FILE = 1 << 30  # bytes
_log = logging.getLogger(__name__)

FORMAT = Format(
    "images",
    "folders of photographs or depth images: a folder is an episode",
    lambda path: holds_only(path, SUFFIXES, VIDEO_SUFFIXES),
)


def open_source(
    path: Path,
    *,
    sequences: bool = True,
    size: int | None = None,
    fps: float = 1.0,
    camera: str = "camera",
    task: str = "none",
    on_error: str = "raise",
) -> EpisodeSource:
    """Open a folder of pictures.

    Args:
        path: the folder; folders below it belong to it.
        sequences: whether the pictures of a folder are the frames of one episode; else each is an episode of its own.
        size: pixels; colour pictures are resized to it (short side) and their centre kept. Without it all must have
            one size.
        fps: pictures per second. Photographs have no clock: by default each counts as a second.
        camera: the end of the key's name.
        task: `none`, or what the `folder` or the `file` (of the first frame) is called.
        on_error: `skip` leaves damaged pictures out of their episode, with a warning. An episode that has no other is
            one that cannot be read.

    Raises:
        UsageError: an option is wrong.
        UserError: there are no pictures, or the first cannot be read.
    """
    if size is not None and size < 1:
        raise UsageError(f"options.size must be at least 1 pixel, got {size}")
    if not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    if on_error not in ON_ERROR:
        raise unknown_name("on_error", on_error, ON_ERROR)
    return ImageFolderSource(
        Path(path), sequences=sequences, size=size, fps=float(fps), camera=camera, task=task, skip=on_error == "skip"
    )


class ImageFolderSource:
    """Implements `EpisodeSource`; holds no file open."""

    def __init__(
        self, path: Path, *, sequences: bool, size: int | None, fps: float, camera: str, task: str, skip: bool
    ) -> None:
        self.fps, self.robot = fps, ""
        self._root = path if path.is_dir() else path.parent
        self._sequences, self._size, self._skip, self._task = sequences, size, skip, task
        files = list_files(path, SUFFIXES)
        task_of(files[0], task)  # a wrong option is said now
        self._episodes = [list(group) for _, group in groupby(files, key=(lambda f: f.parent) if sequences else None)]
        self._first, frame = self._first_readable(files)
        self._key = f"{_prefix(frame)}{camera}"
        if size is not None and not self._key.startswith(IMAGE_PREFIX):
            raise UsageError(
                f"options.size would change the bits of {self._first}: only 8-bit colour pictures are resized"
            )
        shape = self._fitted(frame).pixels.shape
        pixels = frame.pixels
        lossy = self._key.startswith(IMAGE_PREFIX) and all(file.suffix.lower() in JPEG_SUFFIXES for file in files)
        self._spec = KeySpec(str(pixels.dtype), shape, codec="jpeg" if lossy else "zstd")
        self.keys: Mapping[str, KeySpec] = {self._key: self._spec}
        self.provenance: Mapping[str, Any] = {"format": "images", "files": len(files), "size": size}

    def __len__(self) -> int:
        return len(self._episodes)

    def episodes(self) -> Iterator[SourceEpisode]:
        """An episode per folder, or per file; nothing is read yet."""
        for files in self._episodes:
            named = files[0].parent if self._sequences else files[0]
            yield SourceEpisode(
                origin=name_of(named, self._root),
                task=task_of(files[0], self._task),
                blocks=partial(self._blocks, files),
                length=None if self._skip else len(files),
            )

    def close(self) -> None:
        """Nothing is held open."""

    def _blocks(self, files: Sequence[Path]) -> Iterator[Block]:
        most = max(1, BLOCK_BYTES // max(1, np.dtype(self._spec.dtype).itemsize * prod(self._spec.shape)))
        frames: list[Picture] = []
        damaged: list[UserError] = []
        for file in files:
            try:
                frame = self._read(file)
            except UserError as error:
                if not self._skip:
                    raise
                damaged.append(error)
                continue
            frames.append(self._checked(file, frame))
            if len(frames) == most:
                yield self._block(frames)
                frames = []
        if frames:
            yield self._block(frames)
        if damaged:
            _log.warning("left out %d of %d pictures, the first: %s", len(damaged), len(files), damaged[0])

    def _block(self, frames: Sequence[Picture]) -> Block:
        pixels = np.stack([frame.pixels for frame in frames])
        return EncodedBlock({self._key: pixels}, {self._key: [frame.file for frame in frames]})

    def _first_readable(self, files: Sequence[Path]) -> tuple[Path, Picture]:
        for file in files:
            try:
                return file, self._read(file)
            except UserError:
                if not self._skip:
                    raise
        raise UserError(f"none of the {len(files)} pictures in {self._root} can be read")

    def _read(self, file: Path) -> Picture:
        try:
            if file.stat().st_size > _LARGEST_FILE:
                raise UserError(f"{file} is larger than {_LARGEST_FILE >> 30} GiB: leave it out")
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file} cannot be read ({error.strerror}): leave it out") from error
        if file.suffix.lower() == NPY:
            return Picture(decode_npy(data, where=str(file)))
        enough = 2 * self._size if self._size else None
        picture = decode_picture(data, where=str(file), upright=True, enough=enough)
        pixels = picture.pixels
        return picture if pixels.dtype != np.uint8 else Picture(as_rgb(pixels), picture.file)

    def _fitted(self, frame: Picture) -> Picture:
        return frame if self._size is None else Picture(as_square(frame.pixels, self._size))

    def _checked(self, file: Path, frame: Picture) -> Picture:
        kind = _prefix(frame)
        if not self._key.startswith(kind):
            raise UserError(f"{file} belongs to {kind}*, and {self._first} to {self._key}: put them into two folders")
        fitted = self._fitted(frame)
        found = KeySpec(str(fitted.pixels.dtype), fitted.pixels.shape)
        if (found.dtype, found.shape) != (self._spec.dtype, self._spec.shape):
            remedy = "; options.size=<pixels> brings all to one size" if kind == IMAGE_PREFIX else ""
            raise UserError(f"{file} is {found.describe(1)}, and {self._first} is {self._spec.describe(1)}{remedy}")
        return fitted


def _prefix(frame: Picture) -> str:
    """The beginning of the key for such frames."""
    pixels = frame.pixels
    if pixels.dtype == np.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3:
        return IMAGE_PREFIX
    return DEPTH_PREFIX if pixels.dtype in (np.uint16, np.float32) and pixels.ndim == 2 else RAW_PREFIX
