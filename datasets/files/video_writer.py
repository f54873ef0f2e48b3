"""MP4 files written frame by frame, with exact times."""

from __future__ import annotations

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name

CODECS = {  # FFmpeg's encoder: options, of which crf may be replaced
    "libx264": {"crf": "20", "preset": "veryfast", "bf": "0"},
    "libsvtav1": {"crf": "30", "preset": "12"},
}
_FINE = Fraction(1, 90_000)  # seconds: the clock for rates that are no whole number


class VideoWriter:
    """One video; `close` completes the file, which is useless before.

    Args:
        path: of the file, ending in .mp4.
        height, width: of the frames, in pixels.
        fps: frame i is shown at i / fps seconds, to 6 microseconds.
        codec: one of `CODECS`.
        crf: constant quality, from 0 (best) to 51 (libx264) or 63 (libsvtav1); None for 20 and 30.
        gop: distance of key frames; 2 makes any frame quick to reach.

    Raises:
        UsageError: an option makes no sense.
        UserError: the encoder does not take such frames, or the disk fails.
    """

    def __init__(
        self,
        path: Path,
        *,
        height: int,
        width: int,
        fps: float,
        codec: str = "libx264",
        crf: float | None = None,
        gop: int = 2,
    ) -> None:
        self.path, self.fps = path, fps
        self.frames = 0
        self.bytes = 0  # handed to the file so far; an encoder holds some frames back
        options = {**encoder_options(codec, crf=crf, gop=gop)}
        whole = fps == round(fps)
        self._clock = Fraction(1, round(fps)) if whole else _FINE
        rate = Fraction(round(fps)) if whole else Fraction(fps).limit_denominator(90_000)
        # libsvtav1 knows 4:2:0 only, which needs even sides, as does every hardware decoder
        pixels = "yuv420p" if height % 2 == width % 2 == 0 or codec != "libx264" else "yuv444p"
        self._failure = f"{codec} cannot write {width} x {height} frames to {path}"
        try:
            self._container = av.open(f"file:{path}", "w", format="mp4", options={"movflags": "+faststart"})
            stream: Any = self._container.add_stream(codec, rate=rate, options=options)
            stream.width, stream.height, stream.pix_fmt = width, height, pixels
            stream.codec_context.time_base = self._clock
            stream.codec_context.open()
        except (av.FFmpegError, ValueError) as error:
            raise self._error(error) from error
        self._stream = stream
        self.pixel_format = pixels

    def write(self, frames: np.ndarray) -> None:
        """Add frames uint8 [T, H, W, 3]."""
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.time_base = self._clock
            frame.pts = round(self.frames / Fraction(self.fps) / self._clock)
            self.frames += 1
            self._encode(frame)

    def close(self) -> None:
        """Write what the encoder holds back and complete the file."""
        self._encode(None)
        try:
            self._container.close()
        except av.FFmpegError as error:
            raise self._error(error) from error

    def abandon(self) -> None:
        """Let go of the file, complete or not."""
        try:
            self._container.close()
        except av.FFmpegError:
            return  # the file is to be deleted: what is wrong with it no longer matters

    def _encode(self, frame: Any) -> None:
        try:
            for packet in self._stream.encode(frame):
                self.bytes += packet.size
                self._container.mux(packet)
        except av.FFmpegError as error:
            raise self._error(error) from error

    def _error(self, error: Exception) -> UserError:
        if isinstance(error, OSError) and isinstance(error.errno, int) and 0 < error.errno < 256:
            raise OSError(error.errno, error.strerror) from error  # of the disk: for the caller's message
        return UserError(f"{self._failure} ({error}): take another codec (libx264 takes any size), or images")


def encoder_options(codec: str, *, crf: float | None, gop: int) -> dict[str, str]:
    """FFmpeg's options for an encoder.

    Raises:
        UsageError: an unknown codec, or a value out of range.
    """
    if codec not in CODECS:
        raise unknown_name("vcodec", codec, CODECS)
    most = 51 if codec == "libx264" else 63
    if crf is not None and not 0 <= crf <= most:
        raise UsageError(f"crf must be in [0, {most}] for {codec}, got {crf}")
    if gop < 1:
        raise UsageError(f"gop must be at least 1, got {gop}")
    if codec == "libsvtav1":
        os.environ.setdefault("SVT_LOG", "1")  # errors only: the library prints its settings to stderr otherwise
    options = {**CODECS[codec], "g": str(gop)}
    return options if crf is None else {**options, "crf": str(crf)}
