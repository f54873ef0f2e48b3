"""Samples of WebDataset that hold videos: such a sample is an episode, with arrays [T, ...] beside its frames."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.episode_source import BLOCK_BYTES
from embodied.datasets.files.encoded_images import as_square
from embodied.datasets.files.video_files import VideoFile
from embodied.datasets.importers.resampling import evenly_timed
from embodied.datasets.store.episode_index import KeySpec

_SAME_RATE = 5e-4  # relative


def clip_specs(
    videos: Mapping[str, bytes], arrays: Mapping[str, np.ndarray], *, size: int | None, where: str
) -> tuple[float | None, dict[str, KeySpec]]:
    """The rate of the first video, None if it says none, and the keys: videos, and arrays with time first."""
    with _opened(videos, where) as opened:
        rate = next(iter(opened.values())).fps
        shapes = {name: video.frame_shape if size is None else (size, size, 3) for name, video in opened.items()}
    specs = {name: KeySpec("uint8", shape, codec="jpeg") for name, shape in shapes.items()}
    return rate, specs | {name: KeySpec(str(a.dtype), a.shape[1:]) for name, a in arrays.items() if a.ndim}


def clip_blocks(
    videos: Mapping[str, bytes],
    arrays: Mapping[str, np.ndarray],
    *,
    fps: float,
    size: int | None,
    where: str,
    block_bytes: int = BLOCK_BYTES,
) -> Iterator[dict[str, np.ndarray]]:
    """The frames of all videos together, with the rows of the arrays that belong to them.

    Args:
        videos: the bytes of the files, by key.
        arrays: [T, ...], by key.
        fps: a video of another rate is resampled, the nearest frame for each tick.
        size: pixels, as `as_square` has it; None leaves frames as they are.
        where: names the sample in messages.
        block_bytes: about the size of the blocks.

    Raises:
        UserError: a video is broken, or has not as many frames as the arrays or another video.
    """
    count, frames = 0, list[dict[str, np.ndarray]]()
    with _opened(videos, where) as opened:
        streams = [_single_frames(video, fps, size, where) for video in opened.values()]
        for pictures in _together(streams, where):
            frames.append(dict(zip(opened, pictures, strict=True)))
            if len(frames) * sum(picture.nbytes for picture in pictures) >= block_bytes:
                yield _block(frames, arrays, count, where)
                count, frames = count + len(frames), []
    if frames:
        yield _block(frames, arrays, count, where)
        count += len(frames)
    for name, array in arrays.items():
        if len(array) != count:
            raise UserError(
                f"{where}: {name} has {len(array)} rows, the video {count} frames: options.exclude=[{name}]"
            )


def _block(
    frames: list[dict[str, np.ndarray]], arrays: Mapping[str, np.ndarray], start: int, where: str
) -> dict[str, np.ndarray]:
    stop = start + len(frames)
    for name, array in arrays.items():
        if len(array) < stop:
            raise UserError(
                f"{where}: {name} has {len(array)} rows, and the video more frames: options.exclude=[{name}]"
            )
    pictures = {name: np.stack([frame[name] for frame in frames]) for name in frames[0]}
    return pictures | {name: array[start:stop] for name, array in arrays.items()}


def _single_frames(video: VideoFile, fps: float, size: int | None, where: str) -> Iterator[np.ndarray]:
    timed = video.blocks()
    if video.fps is not None and abs(video.fps - fps) <= _SAME_RATE * fps:
        blocks: Iterator[np.ndarray] = (frames for _, frames in timed)
    else:
        blocks = evenly_timed(timed, fps, block_bytes=BLOCK_BYTES, where=where)
    for frames in blocks:
        for frame in frames:
            yield frame if size is None else as_square(frame, size)


def _together(streams: list[Iterator[np.ndarray]], where: str) -> Iterator[tuple[np.ndarray, ...]]:
    while True:
        frames = [next(stream, None) for stream in streams]
        there = [frame for frame in frames if frame is not None]
        if not there:
            return
        if len(there) < len(frames):
            raise UserError(f"{where}: its videos differ in length")
        yield tuple(there)


@contextmanager
def _opened(videos: Mapping[str, bytes], where: str) -> Iterator[dict[str, VideoFile]]:
    """The videos, from temporary files of made-up names: decoders want files."""
    names: dict[str, str] = {}
    with ExitStack() as stack:
        try:
            opened = {}
            for name, data in videos.items():
                file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".video"))
                file.write(data)
                file.flush()
                names[file.name] = f"{name} in {where}"
                opened[name] = stack.enter_context(VideoFile(file.name))
            yield opened
        except UserError as error:
            message = str(error)
            for temporary, name in names.items():
                message = message.replace(temporary, name)
            raise UserError(message) from error
