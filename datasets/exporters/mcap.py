"""ROS 2 bags: a folder with one bag per episode, MCAP storage and metadata.yaml, as `ros2 bag play` takes them.

| in the store | topic | message |
| --- | --- | --- |
| observation.images.<camera> with codec jpeg | /observation/images/<camera>/compressed | CompressedImage, JPEG |
| observation.images.<camera> with codec zstd | /observation/images/<camera> | Image, rgb8 |
| observation.depth.<camera>, observation.raw.<camera> | /observation/depth/<camera> | Image, 16UC1, 32FC1, ... |
| observation.state | /observation/state | JointState, the values as positions |
| any other vector or array | /action, ... | Float64MultiArray, Int64MultiArray, UInt64MultiArray, UInt8MultiArray |
| any other number | /next/reward, ... | Float64, Int64, UInt64, Bool |
| the task | /task | String, at the beginning |

All messages of a frame have its time, in the header as well where there is one. An episode begins when it did in the
recording it was imported from, else one second after 1970 (a store has no dates). What ROS has no place for (names,
dtypes, shapes, success, seed) is in the bag's custom data under `embodied`, and importing the bag restores it.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.files import atomic_path
from embodied.core.protocols import Reporter
from embodied.datasets.episode_source import BLOCK_BYTES, Format
from embodied.datasets.exporters.ros_writing import RosTypes, Track, track_of
from embodied.datasets.files.bag_record import NAME, BagRecord, KeyRecord
from embodied.datasets.importers.time_alignment import NS
from embodied.datasets.storage.disk import disk_errors
from embodied.datasets.store.episode_index import EpisodeInfo
from embodied.datasets.store.episode_store import EpisodeStore

FORMAT = Format("mcap", "ROS 2 bags with MCAP storage, one per episode")

_IMAGES, _COMPRESSIONS = ("auto", "jpeg", "raw"), ("zstd", "none")
_LATEST = 2**31 * NS - 10**6 * NS  # ROS 2 counts seconds in 31 bits; leaves the longest episode 11 days


def export(
    store: EpisodeStore,
    path: Path,
    *,
    reporter: Reporter,
    ros_distro: str = "humble",
    images: str = "auto",
    compression: str = "zstd",
) -> None:
    """Write the folder `path` with a bag `episode_000000`, ... for each episode, whole or not at all.

    Args:
        store: opened.
        path: of the folder; must not exist.
        reporter: shows progress.
        ros_distro: whose message definitions are written along.
        images: `auto` writes JPEG where the store has JPEG, else every bit; `jpeg` and `raw` do so for all cameras.
        compression: of the file's chunks, `zstd` or `none`.

    Raises:
        UsageError: an option makes no sense, or the store has no episodes.
        UserError: something is at `path`, the store is damaged, or the disk fails.
        MissingExtraError: rosbags is not installed.
    """
    path = Path(path)
    if path.exists():
        raise UserError(f"{path} exists already: choose another path, or delete it")
    if not len(store):
        raise UsageError(f"{store.path} has no episodes to export")
    for name, value, valid in (("images", images, _IMAGES), ("compression", compression, _COMPRESSIONS)):
        if value not in valid:
            raise unknown_name(name, value, valid)
    types = RosTypes(ros_distro)
    tracks = {key: track_of(key, spec, types, images) for key, spec in store.keys.items()}
    topics = [track.topic for track in tracks.values()]
    if len(set(topics)) < len(topics) or "/task" in topics:
        raise UsageError(f"two keys of {store.path} would share a topic: {', '.join(sorted(topics))}; rename one")
    with disk_errors(path, "writing the bags"), atomic_path(path) as temporary:
        temporary.mkdir()
        for info in reporter.track(store.episodes, total=len(store), description="export"):
            _write_bag(temporary / f"episode_{info.index:06d}", store, info, tracks, types, compression)


def _write_bag(
    path: Path,
    store: EpisodeStore,
    info: EpisodeInfo,
    tracks: Mapping[str, Track],
    types: RosTypes,
    compression: str,
) -> None:
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    begin = (info.notes or {}).get("start_ns")
    if not isinstance(begin, int) or not 0 < begin < _LATEST:
        begin = NS
    writer = Writer(path, version=8, storage_plugin=StoragePlugin.MCAP)  # 8 is read by ROS 2 from Humble on
    writer.set_custom_data(NAME, _record(store, info, tracks).to_text())
    if compression == "zstd":
        writer.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    size = sum(np.dtype(spec.dtype).itemsize * prod(spec.shape) for spec in store.keys.values())
    step = max(1, BLOCK_BYTES // size)
    with writer:
        task = writer.add_connection("/task", "std_msgs/msg/String", typestore=types.store)
        text = types.make("std_msgs/msg/String", data=info.task)
        writer.write(task, begin, types.write(text, "std_msgs/msg/String"))
        connections = {
            key: writer.add_connection(track.topic, track.type, typestore=types.store) for key, track in tracks.items()
        }
        for start in range(0, info.length, step):
            stop = min(start + step, info.length)
            frames = {key: store.read(key, info.start + start, info.start + stop) for key in tracks}
            for number in range(start, stop):
                time = begin + round(number * (NS / store.fps))
                for key, track in tracks.items():
                    message = track.encode(frames[key][number - start], time)
                    writer.write(connections[key], time, types.write(message, track.type))


def _record(store: EpisodeStore, info: EpisodeInfo, tracks: Mapping[str, Track]) -> BagRecord:
    return BagRecord(
        fps=store.fps,
        robot=store.robot,
        task=info.task,
        seed=info.seed,
        success=info.success,
        origin=info.origin,
        notes=dict(info.notes or {}),
        keys={key: KeyRecord(track.topic, track.field, track.kept(store.keys[key])) for key, track in tracks.items()},
    )
