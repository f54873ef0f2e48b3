"""Frames of a store as ROS 2 messages."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from PIL import Image

from embodied.core.errors import MissingExtraError, unknown_name
from embodied.core.protocols import IMAGE_PREFIX, STATE
from embodied.datasets.importers.ros_arrays import COMPRESSED
from embodied.datasets.importers.time_alignment import NS
from embodied.datasets.key_casting import DEPTH_PREFIX, RAW_PREFIX
from embodied.datasets.store.episode_index import KeySpec

_QUALITY = 95  # of JPEG, as in a store
_KINDS = {"f": "Float64", "i": "Int64", "u": "UInt64", "b": "UInt8"}  # of MultiArray; exact for every dtype
Encode = Callable[[np.ndarray, int], Any]


@dataclass(frozen=True)
class Track:
    """How one key is written: where, as what, in which field, and the message of a frame at a time in nanoseconds."""

    topic: str
    type: str
    field: str
    encode: Encode

    def kept(self, spec: KeySpec) -> KeySpec:
        """What a key is afterwards: JPEG, if it is written as such."""
        return replace(spec, codec="jpeg") if self.type == COMPRESSED else spec


class RosTypes:
    """Message types of a ROS distribution."""

    def __init__(self, ros_distro: str) -> None:
        try:
            from rosbags.typesys import Stores, get_typestore
        except ImportError as error:
            raise MissingExtraError("rosbags", "ros") from error
        distros = {each.name.removeprefix("ROS2_").lower(): each for each in Stores if each.name.startswith("ROS2_")}
        if ros_distro not in distros:
            raise unknown_name("ros_distro", ros_distro, distros)
        self.store = get_typestore(distros[ros_distro])

    def make(self, message_type: str, /, **fields: Any) -> Any:
        """A message of that type."""
        return self.store.types[message_type](**fields)

    def write(self, message: Any, message_type: str) -> bytes:
        """A message in CDR."""
        return bytes(self.store.serialize_cdr(message, message_type))

    def header(self, time: int, frame: str) -> Any:
        """A header of that time in nanoseconds."""
        stamp = self.make("builtin_interfaces/msg/Time", sec=time // NS, nanosec=time % NS)
        return self.make("std_msgs/msg/Header", stamp=stamp, frame_id=frame)


def track_of(key: str, spec: KeySpec, types: RosTypes, images: str) -> Track:
    """How a key is written, as the table in `exporters.mcap` says.

    Args:
        images: `auto`, `jpeg` or `raw`.
    """
    topic = _topic(key)
    if key.startswith((IMAGE_PREFIX, DEPTH_PREFIX, RAW_PREFIX)) and len(spec.shape) in (2, 3):
        lossy = key.startswith(IMAGE_PREFIX) and (images == "jpeg" or (images == "auto" and spec.codec == "jpeg"))
        if lossy:
            return _compressed_track(f"{topic}/compressed", types)
        encoding = "rgb8" if key.startswith(IMAGE_PREFIX) else _opencv(spec)
        if encoding:
            return _image_track(topic, encoding, spec, types)
    if key == STATE:
        names = list(spec.names or (f"state_{number}" for number in range(prod(spec.shape))))
        return _state_track(topic, names, types)
    if not spec.shape:
        return _number_track(topic, spec, types)
    return _array_track(topic, spec, types)


def _topic(key: str) -> str:
    """A key as a name that ROS allows: tokens of letters, digits and underscores, without a digit in front."""
    tokens = [re.sub(r"\W", "_", token, flags=re.ASCII) for token in key.split(".") if token]
    return "".join(f"/_{token}" if token[0].isdigit() else f"/{token}" for token in tokens)


def _opencv(spec: KeySpec) -> str:
    """OpenCV's name of such pixels, as ROS uses it; empty if it has none."""
    dtype, channels = np.dtype(spec.dtype), spec.shape[2] if len(spec.shape) == 3 else 1
    kind = {"u": "U", "i": "S", "f": "F"}.get(dtype.kind, "")
    bits = 8 * dtype.itemsize
    known = f"{bits}{kind}" in ("8U", "8S", "16U", "16S", "32S", "32F", "64F") and channels <= 4
    return f"{bits}{kind}C{channels}" if known else ""


def _compressed_track(topic: str, types: RosTypes) -> Track:
    name = COMPRESSED

    def encode(frame: np.ndarray, time: int) -> Any:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
        data = np.frombuffer(buffer.getvalue(), np.uint8)
        return types.make(name, header=types.header(time, topic), format="rgb8; jpeg compressed bgr8", data=data)

    return Track(topic, name, "", encode)


def _image_track(topic: str, encoding: str, spec: KeySpec, types: RosTypes) -> Track:
    name = "sensor_msgs/msg/Image"
    height, width = spec.shape[:2]
    dtype = np.dtype(spec.dtype).newbyteorder("<")

    def encode(frame: np.ndarray, time: int) -> Any:
        data = np.frombuffer(np.ascontiguousarray(frame, dtype).tobytes(), np.uint8)
        return types.make(
            name,
            header=types.header(time, topic),
            height=height,
            width=width,
            encoding=encoding,
            is_bigendian=0,
            step=len(data) // height,
            data=data,
        )

    return Track(topic, name, "", encode)


def _state_track(topic: str, names: list[str], types: RosTypes) -> Track:
    name, nothing = "sensor_msgs/msg/JointState", np.zeros(0)

    def encode(frame: np.ndarray, time: int) -> Any:
        position = frame.astype(np.float64).reshape(-1)
        header = types.header(time, topic)
        return types.make(name, header=header, name=names, position=position, velocity=nothing, effort=nothing)

    return Track(topic, name, "position", encode)


def _number_track(topic: str, spec: KeySpec, types: RosTypes) -> Track:
    kind = np.dtype(spec.dtype).kind
    name = f"std_msgs/msg/{'Bool' if kind == 'b' else _KINDS[kind]}"
    return Track(topic, name, "", lambda frame, time: types.make(name, data=frame.item()))


def _array_track(topic: str, spec: KeySpec, types: RosTypes) -> Track:
    kind = _KINDS[np.dtype(spec.dtype).kind]
    name, dtype = f"std_msgs/msg/{kind}MultiArray", np.dtype(kind.lower())
    dimensions = [
        types.make("std_msgs/msg/MultiArrayDimension", label=str(place), size=size, stride=prod(spec.shape[place:]))
        for place, size in enumerate(spec.shape)
    ]
    layout = types.make("std_msgs/msg/MultiArrayLayout", dim=dimensions, data_offset=0)
    return Track(
        topic, name, "", lambda frame, time: types.make(name, layout=layout, data=frame.astype(dtype).reshape(-1))
    )
