"""Folders of videos: every file is an episode with the one key observation.images.<camera>.

All episodes of a store have one rate and one size. Without options the files must agree on both; `fps` takes the frames
that are nearest to an even clock, `size` resizes. Frames are turned upright as the files' metadata says.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.episode_source import BLOCK_BYTES, Block, EpisodeSource, Format, SourceEpisode
from embodied.datasets.files.encoded_images import as_square
from embodied.datasets.files.image_files import SUFFIXES as IMAGE_SUFFIXES
from embodied.datasets.files.video_files import SUFFIXES, VideoFile, decoding_threads
from embodied.datasets.importers.media_folders import holds_only, list_files, name_of, task_of
from embodied.datasets.importers.resampling import evenly_timed
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.planar_frames import Frames

ON_ERROR = ("raise", "skip")
_SAME_RATE = 5e-4  # relative; 29.97 and 30 differ
_MOST_DRIFT = 1.5  # frames that a file may be off an even clock before a warning
_log = logging.getLogger(__name__)

FORMAT = Format(
    "videos",
    "folders of videos: a file is an episode",
    lambda path: holds_only(path, SUFFIXES, IMAGE_SUFFIXES),
)


def open_source(
    path: Path,
    *,
    fps: float | None = None,
    size: int | None = None,
    camera: str = "camera",
    task: str = "none",
    on_error: str = "raise",
) -> EpisodeSource:
    """Open a folder of videos (or one video); looks into every file.

    Args:
        path: the folder; folders below it belong to it.
        fps: frames per second of the episodes; that of the files by default. A file of another rate is resampled:
            the nearest frame for each tick, dropped or repeated where the rates differ.
        size: pixels; frames are resized to it (short side) and their centre kept.
        camera: the end of the key's name.
        task: `none`, or what the `folder` or the `file` is called.
        on_error: `skip` leaves out files that cannot be opened, with a warning.

    Raises:
        UsageError: an option is wrong, or needed.
        UserError: there are no videos, or one cannot be opened.
    """
    if size is not None and size < 1:
        raise UsageError(f"options.size must be at least 1 pixel, got {size}")
    if fps is not None and not 0 < fps < float("inf"):
        raise UsageError(f"fps must be positive, got {fps}")
    if on_error not in ON_ERROR:
        raise unknown_name("on_error", on_error, ON_ERROR)
    root = Path(path)
    files = list_files(root, SUFFIXES)
    task_of(files[0], task)  # a wrong option is said now
    videos = _opened(files, skip=on_error == "skip")
    _require_one_size(videos, size)
    rate = _common_rate(videos, root) if fps is None else float(fps)
    return VideoFolderSource(root, videos, fps=rate, size=size, camera=camera, task=task)


@dataclass(frozen=True)
class _Video:
    path: Path
    fps: float | None
    shape: tuple[int, ...]


class VideoFolderSource:
    """Implements `EpisodeSource`; holds a file open only while its blocks are read."""

    def __init__(
        self, root: Path, videos: list[_Video], *, fps: float, size: int | None, camera: str, task: str
    ) -> None:
        self.fps, self.robot = fps, ""
        self._root, self._videos = root if root.is_dir() else root.parent, videos
        self._size, self._task, self._key = size, task, f"{IMAGE_PREFIX}{camera}"
        shape = videos[0].shape if size is None else (size, size, 3)
        self.keys: Mapping[str, KeySpec] = {self._key: KeySpec("uint8", shape, codec="jpeg")}
        self.provenance: Mapping[str, Any] = {"format": "videos", "files": len(videos), "fps": fps, "size": size}

    def __len__(self) -> int:
        return len(self._videos)

    def episodes(self) -> Iterator[SourceEpisode]:
        """An episode per file; how many frames it has only decoding tells."""
        for video in self._videos:
            yield SourceEpisode(
                origin=name_of(video.path, self._root),
                task=task_of(video.path, self._task),
                blocks=partial(self._blocks, video),
            )

    def close(self) -> None:
        """Nothing is held open."""

    def _blocks(self, video: _Video) -> Iterator[Block]:
        with VideoFile(video.path, upright=True, threads=decoding_threads()) as file:
            blocks: Iterator[Frames]
            if video.fps is not None and _same_rate(video.fps, self.fps):
                blocks = _watched(file.frame_blocks(block_bytes=BLOCK_BYTES), self.fps, video.path)
            else:
                timed = file.blocks(block_bytes=BLOCK_BYTES)
                blocks = evenly_timed(timed, self.fps, block_bytes=BLOCK_BYTES, where=str(video.path))
            for frames in blocks:
                if self._size is not None:
                    frames = np.stack([as_square(frame, self._size) for frame in np.asarray(frames)])
                yield {self._key: frames}


def _opened(files: list[Path], *, skip: bool) -> list[_Video]:
    videos, broken = [], []
    for path in files:
        try:
            with VideoFile(path, upright=True) as video:
                videos.append(_Video(path, video.fps, video.frame_shape))
        except UserError as error:
            if not skip:
                raise
            broken.append(error)
    if broken:
        _log.warning("left out %d of %d videos, the first: %s", len(broken), len(files), broken[0])
    if not videos:
        raise UserError(f"none of {len(files)} videos can be opened, the first: {broken[0]}")
    return videos


def _require_one_size(videos: list[_Video], size: int | None) -> None:
    first = videos[0]
    other = next((video for video in videos if video.shape != first.shape), None)
    if other and size is None:
        sizes = [f"{video.path} has {video.shape[1]} x {video.shape[0]} pixels" for video in (first, other)]
        raise UsageError(f"{' and '.join(sizes)}: give options.size=<pixels> to bring all to one size")


def _common_rate(videos: list[_Video], root: Path) -> float:
    first = videos[0]
    if first.fps is None:
        raise UsageError(f"{first.path} does not say its rate: give fps=<frames per second>")
    other = next((video for video in videos if video.fps is None or not _same_rate(video.fps, first.fps)), None)
    if other:
        raise UsageError(
            f"the videos in {root} differ in rate: {first.path.name} has {first.fps:g} frames per second, "
            f"{other.path.name} {other.fps or 0:g}; give fps=<frames per second> to bring all to one"
        )
    return first.fps


def _same_rate(one: float, other: float) -> bool:
    return abs(one - other) <= _SAME_RATE * other


def _watched(timed: Iterator[tuple[np.ndarray, Frames]], fps: float, path: Path) -> Iterator[Frames]:
    """The frames as they are; warns of a file whose frames do not follow an even clock."""
    start, count, drift = 0.0, 0, 0.0
    for times, frames in timed:
        start = times[0] if not count else start
        ticks = start + np.arange(count, count + len(times)) / fps
        drift = max(drift, float(np.abs(times - ticks).max()) * fps)
        count += len(times)
        yield frames
    if drift > _MOST_DRIFT:
        _log.warning("%s has no even rate (off by up to %.1f frames): fps=%g resamples it", path, drift, fps)
