"""LeRobotDataset v3.0, which lerobot 0.4 and later load: `LeRobotDataset("any/name", root=path)`.

| in the store | in the dataset |
| --- | --- |
| cameras, uint8 [H, W, 3] | videos, the episodes one after the other; with `use_videos=False` PNG inside the rows |
| uint8 and uint16 [H, W], float32 [H, W]: depth, sensor values | PNG or TIFF inside the rows, bit for bit |
| numbers up to 4096 a frame | columns; a scalar has the shape [1] |
| task | tasks, an index per frame |
| `task_index` of an imported dataset with several tasks an episode | the same |
| `timestamp` | LeRobot's own i / fps; `source.timestamp` where the store's differs by more than 0.1 ms |
| success | `next.success`, where the store has no such key |

Seeds, origins and notes of episodes have no place in the format. What is renamed or left out is reported.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from embodied.core.errors import UsageError, UserError
from embodied.core.files import atomic_path
from embodied.core.protocols import Reporter
from embodied.datasets.episode_source import Format
from embodied.datasets.exporters.lerobot_columns import TIMESTAMP, plan_columns
from embodied.datasets.exporters.lerobot_folder import LeRobotFolder
from embodied.datasets.exporters.lerobot_tasks import EpisodeTasks
from embodied.datasets.files.parquet_files import arrow
from embodied.datasets.files.video_files import TOLERANCE_S
from embodied.datasets.files.video_writer import encoder_options
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.store.episode_index import KeySpec
from embodied.datasets.store.episode_store import EpisodeStore

FORMAT = Format("lerobot", "LeRobotDataset v3.0, a folder that the lerobot package loads")


def export(
    store: EpisodeStore,
    path: Path,
    *,
    reporter: Reporter,
    use_videos: bool = True,
    vcodec: str = "libx264",
    crf: float | None = None,
    gop: int = 2,
    data_files_size_in_mb: float = 100,
    video_files_size_in_mb: float = 200,
    chunks_size: int = 1000,
) -> None:
    """Write a store as the folder `path`, whole or not at all.

    Args:
        store: opened, with at least one episode.
        path: must not exist.
        reporter: shows progress, and says what is renamed, added or left out.
        use_videos: whether cameras become videos, which lose some detail, or PNG images, which lose none.
        vcodec: `libx264`, or `libsvtav1` as lerobot's own recorder, which is slower to read and write.
        crf: constant quality of videos, 0 is best; None for 20 (libx264) or 30 (libsvtav1).
        gop: frames from one key frame of a video to the next; small is quick to read at random, and large on disk.
        data_files_size_in_mb, video_files_size_in_mb: a file takes no further episode beyond this.
        chunks_size: files per folder.

    Raises:
        UsageError: an option makes no sense, or the store has nothing to export.
        UserError: something is at `path`, the store is damaged, or the disk fails.
        MissingExtraError: pyarrow is not installed.
    """
    path = Path(path)
    limits = _checked_limits(data_files_size_in_mb, video_files_size_in_mb, chunks_size)
    encoder = {"codec": vcodec, "crf": crf, "gop": gop}
    encoder_options(vcodec, crf=crf, gop=gop)
    _check_places(store, path)
    tasks = EpisodeTasks(store)
    columns, notes = plan_columns(store, use_videos=use_videos, own_tasks=tasks.per_frame, own_times=_regular(store))
    for note in notes:
        reporter.note(note)
    with disk_errors(path, "writing the LeRobotDataset"), atomic_path(path) as temporary:
        folder = LeRobotFolder(store, temporary, columns=columns, tasks=tasks, limits=limits, encoder=encoder)
        try:
            for info in reporter.track(store.episodes, total=len(store), description="export"):
                folder.add(info)
            folder.finish()
        finally:
            folder.abandon()


def _checked_limits(data_files_size_in_mb: float, video_files_size_in_mb: float, chunks_size: int) -> dict[str, float]:
    sizes = {"data_files_size_in_mb": data_files_size_in_mb, "video_files_size_in_mb": video_files_size_in_mb}
    for name, value in {**sizes, "chunks_size": chunks_size}.items():
        if not 0 < value < float("inf"):
            raise UsageError(f"{name} must be positive, got {value}")
    return {**sizes, "chunks_size": int(chunks_size)}


def _check_places(store: EpisodeStore, path: Path) -> None:
    arrow()  # before anything is read, if pyarrow is missing
    if path.exists():
        raise UserError(f"{path} exists already: choose another path, or delete it")
    if not len(store):
        raise UsageError(f"{store.path} has no episodes to export")


def _regular(store: EpisodeStore) -> bool:
    """Whether the store's `timestamp` is LeRobot's own: frame i of an episode at i / fps."""
    if store.keys.get(TIMESTAMP, KeySpec("", (1,))).shape:
        return False
    for info in store.episodes:
        expected = np.arange(info.length) / store.fps
        times = store.read(TIMESTAMP, info.start, info.start + info.length).astype(np.float64)
        rounding = np.spacing(np.float32(expected[-1]))
        if np.abs(times - expected).max() > TOLERANCE_S + rounding:
            return False
    return True
