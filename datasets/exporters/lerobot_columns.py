"""What each key of an episode store becomes in a LeRobotDataset: its name, its entry in info.json, its Arrow column."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, Literal

import numpy as np
from PIL import Image

from embodied.core.protocols import SUCCESS
from embodied.datasets.files.parquet_files import arrow
from embodied.datasets.store.episode_index import KeySpec, may_lack_values
from embodied.datasets.store.episode_store import EpisodeStore

TIMESTAMP, TASK_INDEX = "timestamp", "task_index"
DEFAULTS = {
    TIMESTAMP: KeySpec("float32", ()),
    "frame_index": KeySpec("int64", ()),
    "episode_index": KeySpec("int64", ()),
    "index": KeySpec("int64", ()),
    TASK_INDEX: KeySpec("int64", ()),
}
_RESERVED = frozenset({*DEFAULTS, "task", "subtask"})  # lerobot sets these in every item
_MOST_AXES = 5  # of an array column of the Hugging Face library
_MOST_ELEMENTS = 4096  # of a column that is no image: lerobot reads such a frame as a list of numbers
_PLANE_PREFIXES = ("observation.depth.", "observation.raw.")
_PLANES = frozenset({"uint8", "uint16", "float32"})  # that PNG or TIFF keep, and lerobot reads
_SIDES = ["height", "width", "channels"]


@dataclass(frozen=True)
class Column:
    """A key of the dataset.

    Args:
        name: in the dataset.
        key: in the store; None for what the exporter makes itself.
        spec: of the frames as the store gives them.
        kind: a `video` of its own, an `image` inside the rows, or a `number`.
    """

    name: str
    key: str | None
    spec: KeySpec
    kind: Literal["video", "image", "number"]

    @property
    def has_statistics(self) -> bool:
        """Not where floats may be nan: lerobot's JSON has no place for it."""
        return not (may_lack_values(self.key or "") and self.spec.dtype.startswith("float"))

    def feature(self) -> dict[str, Any]:
        """The entry of info.json; that of a video lacks `info`."""
        if self.kind == "number":
            names = list(self.spec.names) if len(self.spec.names) == prod(self.spec.shape) else None
            return {"dtype": self.spec.dtype, "shape": list(self.spec.shape) or [1], "names": names}
        shape = [*self.spec.shape, 1][:3]
        entry = {"dtype": self.kind, "shape": shape, "names": list(_SIDES)}
        return entry if len(self.spec.shape) == 3 else {**entry, "info": {"is_depth_map": True}}

    def hugging_face(self) -> dict[str, Any]:
        """The entry of the Hugging Face library's schema; videos have none."""
        shape, value = self.spec.shape, {"dtype": self.spec.dtype, "_type": "Value"}
        if self.kind == "image":
            return {"_type": "Image"}
        if prod(shape) == 1 and len(shape) < 2:
            return value
        if len(shape) == 1:
            return {"feature": value, "length": shape[0], "_type": "Sequence"}
        return {"shape": list(shape), "dtype": self.spec.dtype, "_type": f"Array{len(shape)}D"}

    def arrow_type(self) -> Any:
        pa, _ = arrow()
        if self.kind == "image":
            return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        kind, shape = pa.from_numpy_dtype(np.dtype(self.spec.dtype)), self.spec.shape
        if prod(shape) == 1 and len(shape) < 2:
            return kind
        if len(shape) == 1:
            return pa.list_(kind, shape[0])
        for _ in shape:
            kind = pa.list_(kind)
        return kind

    def arrow_array(self, frames: np.ndarray) -> Any:
        """The column of `frames` [T, ...]."""
        pa, _ = arrow()
        if self.kind == "image":
            return pa.array([{"bytes": _encoded(frame), "path": None} for frame in frames], self.arrow_type())
        array = pa.array(frames.reshape(-1))
        shape = self.spec.shape
        if prod(shape) == 1 and len(shape) < 2:
            return array
        if len(shape) == 1:
            return pa.FixedSizeListArray.from_arrays(array, shape[0])
        for axis in reversed(shape):
            offsets = np.arange(0, len(array) + 1, axis, dtype=np.int32)
            array = pa.ListArray.from_arrays(offsets, array)
        return array


def plan_columns(
    store: EpisodeStore, *, use_videos: bool, own_tasks: bool, own_times: bool
) -> tuple[list[Column], list[str]]:
    """The columns besides `DEFAULTS`, and notes on what is renamed, added or left out.

    Args:
        store: what to export.
        use_videos: whether cameras become videos.
        own_tasks, own_times: whether the store's `task_index` and `timestamp` are what LeRobot calls so.
    """
    columns: list[Column] = []
    notes: list[str] = []
    for key, spec in store.keys.items():
        if (key == TASK_INDEX and own_tasks) or (key == TIMESTAMP and own_times):
            continue
        kind = _kind(key, spec, use_videos=use_videos)
        if kind is None:
            notes.append(f"left out {key}: LeRobot has no place for {spec.describe()}")
            continue
        name = f"source.{key}" if key in _RESERVED else key
        if name != key:
            notes.append(f"{key} is called {name}, since LeRobot uses the name itself")
        if kind == "image" and len(spec.shape) == 2:
            notes.append(_plane_note(key, spec))
        columns.append(Column(name, key, spec, kind))
    known = all(info.success is not None for info in store.episodes)
    if SUCCESS not in store.keys and known:
        columns.append(Column(SUCCESS, None, KeySpec("bool", ()), "number"))
        notes.append(f"added {SUCCESS}, true in the last frame of episodes that succeeded")
    return columns, notes


def _kind(key: str, spec: KeySpec, *, use_videos: bool) -> Literal["video", "image", "number"] | None:
    shape = spec.shape
    if spec.dtype == "uint8" and len(shape) == 3 and shape[2] == 3:
        return "video" if use_videos else "image"
    small = prod(shape) <= _MOST_ELEMENTS and len(shape) <= _MOST_AXES
    if len(shape) == 2 and spec.dtype in _PLANES and (key.startswith(_PLANE_PREFIXES) or not small):
        return "image"
    return "number" if small else None


def _plane_note(key: str, spec: KeySpec) -> str:
    note = f"{key} is kept bit for bit as {spec.dtype} images"
    return f"{note}; lerobot 0.4 reads them as int16, above 32767 as negative" if spec.dtype == "uint16" else note


def _encoded(frame: np.ndarray) -> bytes:
    """A lossless image file: PNG, or TIFF for floats, which PNG has not."""
    buffer = BytesIO()
    if frame.dtype == np.float32:
        Image.fromarray(frame).save(buffer, "TIFF")
    else:
        Image.fromarray(frame).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def schema(columns: Mapping[str, Any]) -> Any:
    """An Arrow schema with the Hugging Face library's metadata, of `Column`s by name."""
    pa, _ = arrow()
    features = {name: column.hugging_face() for name, column in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, column.arrow_type()) for name, column in columns.items()], metadata)
