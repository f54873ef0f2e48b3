"""Frames of a video file in order: exact times and counts, bounded memory, and no other file or address opened.

    with VideoFile("episode.mp4") as video:
        for times, frames in video.blocks():  # float64 [T] seconds, uint8 [T, H, W, 3]
            ...
        frames = video.at(np.arange(8) / 30)  # the frames shown at these times

Decoding goes on where it stopped, so reading a file piece by piece from start to end decodes every frame once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from embodied.core.errors import UserError
from embodied.datasets.episode_source import BLOCK_BYTES
from embodied.datasets.files.video_frames import VideoFrames, rgb_frames
from embodied.datasets.loading.read_ahead import cpu_threads
from embodied.datasets.store.planar_frames import Frames

MOST_PIXELS = 1 << 26  # 8192 x 8192: a header that claims more is broken, or meant to fill the memory
TOLERANCE_S = 1e-4
_SEEK_BEYOND_S = 2.0  # decoding on is as quick as seeking to a key frame that may be just as far away
# Formats with streams inside. Playlists (HLS, concat, ...) would make FFmpeg open whatever they name.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,gif,h264,hevc,m4v,ivf,obu"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": _FORMATS}
SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".gif"})


def decoding_threads() -> int:
    """For an import: half of the processors, for the others compress what is decoded meanwhile."""
    return max(1, cpu_threads() // 2)


class VideoFile:
    """An opened video, read forwards; `at` and `blocks` may be called in any order, but not at the same time.

    Args:
        path: a local file.
        upright: turn frames as the file's metadata says (telephones store them lying).
        depth: give single-channel video of more than 8 bits as uint16 [H, W] with the bits it holds.
        threads: that decode; 0 for as many as the decoder thinks best, which work up to twice as much for one frame.

    Attributes:
        height, width: of the frames that are given, in pixels.
        fps: the average rate the file claims; None if it claims none.
        frames: the count the file claims; None if it claims none. What is decoded can be less in files cut by an
            editor, which marks frames as not to be shown.
        codec, pixel_format: FFmpeg's names.

    Raises:
        UserError: there is no such file, it is broken, or holds no video; also from every reading method.
    """

    def __init__(self, path: str | Path, *, upright: bool = False, depth: bool = False, threads: int = 0) -> None:
        self.path = Path(path)
        self._threads = threads
        self._depth, self._dtype = depth, "uint16" if depth else "uint8"
        if not self.path.is_file():
            raise UserError(f"no video at {self.path}: check the path, or copy the missing file there")
        with self._errors():
            self._container = av.open(f"file:{self.path}", "r", options=OPTIONS, metadata_errors="replace")
        try:
            if not self._container.streams.video:
                raise UserError(f"{self.path} holds no video: delete it, or replace it with the right file")
            self._stream: Any = self._container.streams.video[0]
            self._open(upright)
        except BaseException:
            self._container.close()
            raise

    def _open(self, upright: bool) -> None:
        context = self._stream.codec_context
        if context is None:
            raise UserError(f"{self.path}: its codec is unknown: convert it with ffmpeg, or replace the file")
        if not 0 < context.width * context.height <= MOST_PIXELS:
            raise UserError(f"{self.path}: a frame size of {context.width} x {context.height} cannot be right")
        self._stream.thread_type, context.thread_count = "AUTO", self._threads
        self.codec = context.name
        self.fps = float(self._stream.average_rate) if self._stream.average_rate else None
        self.frames = self._stream.frames or None
        self._size = (context.width, context.height)
        self._reformat = VideoReformatter()
        self._decoder: Iterator[Any] = iter(())
        self._here: Any = None  # the frame shown last, and the one after it; both None before the first
        self._ahead: Any = None
        self._restart()
        if self._here is None:
            raise UserError(f"{self.path} holds no frame that can be decoded: it is empty or damaged; replace it")
        self.pixel_format: str = self._here.format.name
        self._quarters: int = round(self._here.rotation / 90) % 4 if upright else 0
        self.height: int = self._size[0] if self._quarters % 2 else self._size[1]
        self.width: int = self._size[1] if self._quarters % 2 else self._size[0]

    @property
    def frame_shape(self) -> tuple[int, ...]:
        """[H, W, 3], or [H, W] for depth."""
        return (self.height, self.width) if self._depth else (self.height, self.width, 3)

    def close(self) -> None:
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def at(self, times: np.ndarray, *, tolerance_s: float = TOLERANCE_S) -> np.ndarray:
        """What `frames_at` gives as an array: uint8 [T, H, W, 3], or uint16 [T, H, W] for depth."""
        return np.asarray(self.frames_at(times, tolerance_s=tolerance_s))

    def frames_at(self, times: np.ndarray, *, tolerance_s: float = TOLERANCE_S) -> Frames:
        """The frames nearest to `times`, as stored; left as planes where they are such as a JPEG can take.

        Args:
            times: float [T], seconds in the file's own clock, not decreasing.
            tolerance_s: how far from its time a frame may lie.

        Raises:
            UserError: a time has no frame, because the file is cut short, damaged, or belongs to other data.
        """
        found = []
        for time in map(float, times):
            self._show(time)
            if abs(self._here.time - time) > tolerance_s:
                raise self._no_frame(time, tolerance_s)
            found.append(self._here)
        return self._frames(found) if found else np.empty((0, *self.frame_shape), self._dtype)

    def blocks(
        self, *, start_s: float = 0.0, stop_s: float = float("inf"), block_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """What `frame_blocks` gives, as arrays."""
        for times, frames in self.frame_blocks(start_s=start_s, stop_s=stop_s, block_bytes=block_bytes):
            yield times, np.asarray(frames)

    def frame_blocks(
        self, *, start_s: float = 0.0, stop_s: float = float("inf"), block_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[np.ndarray, Frames]]:
        """Every frame with `start_s` <= time < `stop_s`: times float64 [T] and frames [T, ...] of about `block_bytes`.

        Frames are left as planes where they are such as a JPEG can take; `block_bytes` counts what they have as arrays.

        Raises:
            UserError: a frame cannot be decoded, or the file ends before the frames it claims.
        """
        most = max(1, block_bytes // (prod(self.frame_shape) * np.dtype(self._dtype).itemsize))
        times: list[float] = []
        frames: list[Any] = []
        self._show(start_s)
        if self._here.time < start_s:
            self._advance()
        while self._here is not None and self._here.time < stop_s:
            times.append(self._here.time)
            frames.append(self._here)
            if len(frames) == most:
                yield np.array(times), self._frames(frames)
                times, frames = [], []
            self._advance()
        if frames:
            yield np.array(times), self._frames(frames)

    def _show(self, time: float) -> None:
        """Make `_here` the frame nearest to `time`."""
        passed = self._here is None or time < self._here.time - TOLERANCE_S
        if passed or (self._ahead is not None and time > self._ahead.time + _SEEK_BEYOND_S):
            self._seek(time)
        while self._ahead is not None and abs(self._ahead.time - time) < abs(self._here.time - time):
            self._advance()

    def _seek(self, time: float) -> None:
        # With reordered frames a seek may land on a key frame that is shown after `time`: then try from further back.
        for back in (0.0, 1.0, 10.0, float("inf")):
            target = max(0.0, time - back)
            with self._errors():
                self._container.seek(int(target / self._stream.time_base), stream=self._stream)
            self._restart()
            if self._here is not None and (self._here.time <= time or target == 0.0):
                return
        if self._here is None:
            raise UserError(f"{self.path}: no frame can be decoded at {time:.4f} s: the file is damaged; replace it")

    def _restart(self) -> None:
        self._decoder = self._decoded()
        self._here = None
        self._ahead = next(self._decoder, None)
        self._advance()

    def _advance(self) -> None:
        self._here, self._ahead = self._ahead, next(self._decoder, None)

    def _decoded(self) -> Iterator[Any]:
        last = None
        with self._errors():
            for packet in self._container.demux(self._stream):
                last = packet.pos if packet.size else last
                for frame in packet.decode():
                    if frame.is_corrupt or frame.time is None:
                        raise UserError(f"{self.path}: a frame near {frame.time} s is damaged: replace the file")
                    if (frame.width, frame.height) != self._size:
                        size = f"{frame.width} x {frame.height}"
                        raise UserError(f"{self.path}: frames change to {size} at {frame.time:.4f} s: split the file")
                    yield frame
        # FFmpeg takes a file that is cut between two frames for one that ends there; the index of an MP4 knows better.
        entries = self._stream.index_entries
        if "mp4" in self._container.format.name and len(entries) and last != entries[-1].pos:
            raise UserError(f"{self.path} is cut short: its index names frames that are not in the file; replace it")

    def _frames(self, frames: list[Any]) -> Frames:
        if self._depth:
            pixels = np.stack([frame.to_ndarray() for frame in frames])
            if pixels.dtype != np.uint16 or pixels.ndim != 3:
                raise UserError(f"{self.path} holds {self.pixel_format} frames, which are no 16-bit depth images")
        elif not self._quarters and (planar := VideoFrames.of(frames)):
            return planar
        else:
            pixels = rgb_frames(frames, self._reformat)
        return np.rot90(pixels, self._quarters, axes=(1, 2)) if self._quarters else pixels

    def _no_frame(self, time: float, tolerance_s: float) -> UserError:
        if self._ahead is None and time > self._here.time:
            ends = f"the file ends with the frame at {self._here.time:.4f} s"
            return UserError(f"{self.path}: no frame at {time:.4f} s: {ends}; it is cut short or belongs to other data")
        nearest = f"no frame within {tolerance_s:.2g} s of {time:.4f} s, the nearest is at {self._here.time:.4f} s"
        return UserError(
            f"{self.path}: {nearest}: it belongs to other data, or its times drift (options.tolerance_s= allows more)"
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise UserError(f"{self.path} cannot be read as a video ({error.strerror}): replace it") from error
