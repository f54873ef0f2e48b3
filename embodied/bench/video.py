"""Rollout videos: captioned, large enough to watch, playable everywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from embodied.core.errors import UserError
from embodied.core.files import atomic_path

GREEN, RED = (21, 128, 61), (185, 28, 28)
CAPTION, BORDER = 28, 4  # pixels


def write_video(path: str | Path, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write frames uint8 [H, W, 3] as H.264 MP4 in yuv420p; odd sides lose their last row or column.

    Frames are taken one at a time, at least one; an array [T, H, W, 3] will do.

    Raises:
        UserError: this build of PyAV has no H.264 encoder.
    """
    remaining = iter(frames)
    first = next(remaining)
    height, width = first.shape[0] // 2 * 2, first.shape[1] // 2 * 2
    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        try:
            stream = container.add_stream("libx264", rate=Fraction(max(fps, 0.001)).limit_denominator(1001))
        except (av.error.FFmpegError, ValueError) as error:
            raise UserError("PyAV here has no H.264 encoder: pip install --force-reinstall av") from error
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"crf": "20"}
        for frame in chain([first], remaining):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame[:height, :width]), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def label_frames(frames: np.ndarray, text: str, ok: bool, *, size: int = 384) -> np.ndarray:
    """Frames enlarged to about `size` pixels, with a border in green (ok) or red and a caption above.

    Args:
        frames: uint8 [T, H, W, 3].
        text: the caption.
        ok: the colour.
        size: the shorter side is enlarged by a whole factor up to this.

    Returns:
        uint8 [T, H', W', 3].
    """
    factor = max(1, size // min(frames.shape[1:3]))
    colour = GREEN if ok else RED
    font = ImageFont.load_default(size=16)
    labelled = []
    for frame in frames:
        large = Image.fromarray(frame).resize(
            (frame.shape[1] * factor, frame.shape[0] * factor), Image.Resampling.BICUBIC
        )
        canvas = Image.new("RGB", (large.width + 2 * BORDER, large.height + CAPTION + BORDER), colour)
        canvas.paste(large, (BORDER, CAPTION))
        ImageDraw.Draw(canvas).text((BORDER + 4, 4), text, fill="white", font=font)
        labelled.append(np.asarray(canvas))
    return np.stack(labelled)


def side_by_side(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Clips of the same height next to each other, uint8 [T, H, sum of W, 3]; shorter ones stay at their last frame."""
    length = max(len(clip) for clip in clips)
    padded = [np.concatenate([clip, np.repeat(clip[-1:], length - len(clip), axis=0)]) for clip in clips]
    return np.concatenate(padded, axis=2)
