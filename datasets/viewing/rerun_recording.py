"""An episode as a Rerun recording (.rrd): images, depth, curves and the task on the episode's own timeline."""

from __future__ import annotations

import io
from collections.abc import Iterable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from embodied.core.errors import MissingExtraError, UserError
from embodied.core.files import atomic_path
from embodied.core.protocols import IMAGE_PREFIX, Reporter
from embodied.datasets.key_casting import DEPTH_PREFIX
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore
from embodied.datasets.viewing.episode_pictures import painters

TIMELINE = "episode_time"
_APPLICATION = "embodied"
_QUALITY = 85  # of the JPEG images in a recording, which is for looking
_LARGEST_VECTOR = 256  # elements drawn as curves
_BLOCK = 32  # frames read at a time


def write_recording(store: EpisodeStore, episode: int, path: Path, *, reporter: Reporter) -> None:
    """Write one episode as `path`, whole or not at all.

    The timelines are `episode_time` (seconds) and `frame`; the entities are the keys, with `/` for `.`.

    Raises:
        MissingExtraError: rerun-sdk is not installed.
        UserError: the recording cannot be written.
    """
    rerun = _rerun()
    name = f"{Path(store.path).name} episode {episode}"
    with atomic_path(path) as temporary:
        recording = rerun.RecordingStream(_APPLICATION, recording_id=f"{store.fingerprint()[:16]}-{episode}")
        recording.save(temporary)
        recording.send_recording_name(name)
        _log_episode(rerun, recording, store, episode, reporter)
        recording.flush()
        recording.disconnect()
        if not temporary.is_file():
            raise UserError(f"Rerun did not write {path}: is its folder writable?")


def spawn_viewer(paths: Iterable[Path]) -> None:
    """Open recordings in Rerun's viewer, a window of its own that stays when this process ends."""
    rerun = _rerun()
    recording = rerun.RecordingStream(_APPLICATION)
    recording.spawn()
    for path in paths:
        recording.log_file_from_path(path)
    recording.flush()


def _rerun() -> Any:
    try:
        import rerun
    except ImportError as error:
        raise MissingExtraError("rerun-sdk", "view") from error
    return rerun


def _log_episode(rerun: Any, recording: Any, store: EpisodeStore, episode: int, reporter: Reporter) -> None:
    info = store.episodes[episode]
    recording.set_time(TIMELINE, duration=0.0)
    recording.set_time("frame", sequence=0)
    recording.log("task", rerun.TextLog(info.task or "no task"))
    pictures = set(painters(store))
    for key, spec in store.keys.items():
        if key not in pictures and prod(spec.shape) <= _LARGEST_VECTOR:
            _log_vector(rerun, recording, store, episode, key, spec)
    painted = painters(store)
    for start in reporter.track(
        range(0, info.length, _BLOCK), total=-(-info.length // _BLOCK), description="blocks of frames"
    ):
        stop = min(start + _BLOCK, info.length)
        for key, paint in painted.items():
            frames = store.read(key, info.start + start, info.start + stop)
            for offset, frame in enumerate(frames, start=start):
                recording.set_time(TIMELINE, duration=offset / store.fps)
                recording.set_time("frame", sequence=offset)
                recording.log(_entity(key), _picture(rerun, key, frame, paint(frame[None])[0]))


def _picture(rerun: Any, key: str, frame: np.ndarray, painted: np.ndarray) -> Any:
    if key.startswith(DEPTH_PREFIX):
        return rerun.DepthImage(frame)  # its values stay readable in the viewer
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(painted)).save(buffer, "jpeg", quality=_QUALITY)
    return rerun.EncodedImage(contents=buffer.getvalue(), media_type="image/jpeg")


def _log_vector(rerun: Any, recording: Any, store: EpisodeStore, episode: int, key: str, spec: KeySpec) -> None:
    values = store.read_episode(episode, [key])[key]
    numbers = values.reshape(len(values), -1).astype(np.float64)  # (T, P)
    times = np.arange(len(values))
    names = spec.names if len(spec.names) == numbers.shape[1] else tuple(map(str, range(numbers.shape[1])))
    if numbers.shape[1] > 1:
        recording.log(_entity(key), rerun.SeriesLines(names=list(names)), static=True)
    recording.send_columns(
        _entity(key),
        indexes=[
            rerun.TimeColumn(TIMELINE, duration=times / store.fps),
            rerun.TimeColumn("frame", sequence=times),
        ],
        columns=rerun.Scalars.columns(scalars=numbers),
    )


def _entity(key: str) -> str:
    prefix, dot, rest = key.partition(IMAGE_PREFIX)
    return f"images/{rest}" if dot and not prefix else key.replace(".", "/")
