"""Decoded frames of a video, as RGB or as the planes of brightness and colour that JPEG files have too.

Video in 4:2:0 has colour at half the resolution, and so may a JPEG: made of the planes it loses nothing of them, and
neither conversion between them and RGB has to be paid. Both have the matrix of BT.601 (or say nothing, which means it);
only the range differs, video's is [16, 235] by default and JPEG's [0, 255]. Where between the pixels a colour lies
(beside the left one in most video, in the middle in JPEG) is left alone, as PyAV's conversion to RGB does too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from av.video.reformatter import VideoReformatter

from embodied.datasets.store.planar_frames import PlanarFrames, Planes

_PLANAR = ("yuv420p", "yuvj420p")  # 8 bits; the second is the first in full range
_UNSAID, _BT470BG, _SMPTE170M = 2, 5, 6  # FFmpeg's AVColorSpace: those with the matrix of BT.601
_FULL = 2  # its AVColorRange


def _table(*, zero: int, span: int, at: int) -> bytes:
    """For each value of a video in limited range the value in full range; `zero` becomes `at`."""
    return np.rint((np.arange(256) - zero) * (255 / span) + at).clip(0, 255).astype(np.uint8).tobytes()


FULL_LUMA = _table(zero=16, span=219, at=0)
FULL_CHROMA = _table(zero=128, span=224, at=128)


class VideoFrames(PlanarFrames):
    """Decoded frames, converted when they are wanted.

    Args:
        frames: PyAV's, of one size, at least one, each `is_planar`.
    """

    def __init__(self, frames: Sequence[Any]) -> None:
        self._frames = list(frames)
        first = self._frames[0]
        self.shape = (len(self._frames), first.height, first.width, 3)

    @classmethod
    def of(cls, frames: Sequence[Any]) -> Self | None:
        """The frames, or None if one of them has to go over RGB."""
        return cls(frames) if all(map(is_planar, frames)) else None

    def planes(self, number: int) -> Planes:
        frame = self._frames[number]
        luma, blue, red = (_plane(frame, component) for component in range(3))
        if frame.format.name == "yuvj420p" or frame.color_range == _FULL:
            return luma, blue, red
        return _translated(luma, FULL_LUMA), _translated(blue, FULL_CHROMA), _translated(red, FULL_CHROMA)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("frames of a video become an array only by conversion, which is a copy")
        return np.asarray(rgb_frames(self._frames, VideoReformatter()), dtype)


def is_planar(frame: Any) -> bool:
    """Whether the planes of a frame can become those of a JPEG as they are, but for the range."""
    return (
        frame.format.name in _PLANAR
        and frame.colorspace in (_UNSAID, _BT470BG, _SMPTE170M)
        and not frame.interlaced_frame  # its two halves have colours of their own
        and all(
            plane.line_size >= -(-frame.width // scale) for plane, scale in zip(frame.planes, (1, 2, 2), strict=True)
        )
    )


def rgb_frames(frames: Sequence[Any], reformatter: VideoReformatter) -> np.ndarray:
    """uint8 [T, H, W, 3]; a frame that comes twice in a row is converted once."""
    found = np.empty((len(frames), frames[0].height, frames[0].width, 3), np.uint8)
    for index, frame in enumerate(frames):
        if index and frame is frames[index - 1]:
            found[index] = found[index - 1]
        else:
            found[index] = reformatter.reformat(frame, format="rgb24").to_ndarray()
    return found


def _translated(plane: np.ndarray, table: bytes) -> np.ndarray:
    # A third of the time that `table[plane]` takes in NumPy, which widens the indices to 64 bits first.
    return np.frombuffer(bytearray(np.ascontiguousarray(plane)).translate(table), np.uint8).reshape(plane.shape)


def _plane(frame: Any, component: int) -> np.ndarray:
    """uint8 [H, W] of one component, in the decoder's memory."""
    scale, plane = 2 if component else 1, frame.planes[component]
    height, width = -(-frame.height // scale), -(-frame.width // scale)
    return np.frombuffer(plane, np.uint8, height * plane.line_size).reshape(height, plane.line_size)[:, :width]
