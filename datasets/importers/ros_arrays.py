"""What a ROS topic gives an episode: for each message type the arrays, their names, and how they may be interpolated.

| type | arrays |
| --- | --- |
| sensor_msgs Image, CompressedImage | the image, under the topic's name |
| sensor_msgs JointState | `position`, `velocity`, `effort`, as far as the first message has them, joints in its order |
| trajectory_msgs JointTrajectory | `positions`, `velocities`, ... of the first point, joints likewise |
| std_msgs Bool, Float64, Int32, ... | one number per frame, shape [] |
| any other, also those that only the recording defines | its numbers as a vector, without headers, times, covariances |
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from embodied.datasets.files.encoded_images import Picture
from embodied.datasets.importers.ros_images import image_spec, read_compressed, read_image
from embodied.datasets.importers.ros_messages import HEADER, Field, Message, MessageError, Struct
from embodied.datasets.store.episode_index import KeySpec

IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
JOINT_STATE, TRAJECTORY = "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory"
_POINT = "trajectory_msgs/msg/JointTrajectoryPoint"
_STATE_FIELDS = ("position", "velocity", "effort")
_POINT_FIELDS = ("positions", "velocities", "accelerations", "effort")
TEXT = "std_msgs/msg/String"
_QUATERNION = "geometry_msgs/msg/Quaternion"
_LONGEST_VECTOR = 4096  # numbers; what is longer is a map or a scan, not the state of a robot

# Fields that the readers below rely on: kind and length as in `ros_messages.Field`. A recording brings its own
# definitions, and one that lies must not get further than here.
_FIELDS: dict[str, dict[str, tuple[str, int | None]]] = {
    IMAGE: {
        **dict.fromkeys(("height", "width", "step"), ("uint32", None)),
        "encoding": ("string", None),
        "is_bigendian": ("uint8", None),
        "data": ("uint8", -1),
    },
    COMPRESSED: {"format": ("string", None), "data": ("uint8", -1)},
    JOINT_STATE: {"name": ("string", -1), **dict.fromkeys(_STATE_FIELDS, ("float64", -1))},
    TRAJECTORY: {"joint_names": ("string", -1), "points": (_POINT, -1)},
    _POINT: dict.fromkeys(_POINT_FIELDS, ("float64", -1)),
}

_UNUSABLE = {
    "sensor_msgs/msg/PointCloud2": "point clouds are not imported",
    "sensor_msgs/msg/PointCloud": "point clouds are not imported",
    "sensor_msgs/msg/CameraInfo": "calibration is not a signal",
    "nav_msgs/msg/OccupancyGrid": "maps are not imported",
    "nav_msgs/msg/Path": "paths have no fixed length",
    "visualization_msgs/msg/Marker": "markers are drawings",
    "visualization_msgs/msg/MarkerArray": "markers are drawings",
    TEXT: "it is text; as the task, name it in options.task_topic",
    "tf2_msgs/msg/TFMessage": "transforms (tf) are not imported: record the pose that you need as a topic",
    "tf/msg/tfMessage": "transforms (tf) are not imported: record the pose that you need as a topic",
    "diagnostic_msgs/msg/DiagnosticArray": "diagnostics are not imported",
    "rcl_interfaces/msg/Log": "logs are not imported",
    "rcl_interfaces/msg/ParameterEvent": "parameters are not imported",
    "rosgraph_msgs/msg/Log": "logs are not imported",
    "rosgraph_msgs/msg/Clock": "simulated time is not a signal",
    "foxglove_msgs/msg/CompressedVideo": "video streams in messages are not decoded: record JPEG instead",
    "ffmpeg_image_transport_msgs/msg/FFMPEGPacket": "video streams in messages are not decoded: record JPEG instead",
    "theora_image_transport/msg/Packet": "video streams in messages are not decoded: record JPEG instead",
}


@dataclass(frozen=True)
class Output:
    """One array of a topic.

    Args:
        field: what of the message it is; empty if the topic has only this one.
        spec: of a frame.
        read: the array of a decoded message, of the spec's dtype and shape; raises `MessageError` if it does not fit.
        blendable: whether values between two messages make sense.
        quaternions: where in the vector the four numbers of a quaternion begin.
    """

    field: str
    spec: KeySpec
    read: Callable[[Message], np.ndarray]
    blendable: bool = False
    quaternions: tuple[int, ...] = ()


@dataclass(frozen=True)
class PictureOutput(Output):
    """The image of a topic whose messages hold image files."""

    def picture(self, message: Message) -> Picture:
        """What `read` gives, with the file where a store can keep it."""
        return read_compressed(message)[0]


def unusable(type_name: str) -> str:
    """Why a message type is left out, whatever its messages say; empty if it is not."""
    return _UNUSABLE.get(type_name, "")


def outputs_of(message_type: Struct, message: Message) -> list[Output]:
    """The arrays of a topic, by its first message.

    Raises:
        MessageError: nothing in it can be used; says why.
    """
    name = message_type.name
    _check_fields(message_type)
    if name == IMAGE:
        return [Output("", image_spec(read_image(message), lossy=False), read_image)]
    if name == COMPRESSED:
        image, lossy = read_compressed(message)
        return [
            PictureOutput("", image_spec(image.pixels, lossy=lossy), lambda later: read_compressed(later)[0].pixels)
        ]
    if name == JOINT_STATE:
        return _joint_outputs(message, _STATE_FIELDS, names="name", point=lambda later: later)
    if name == TRAJECTORY:
        return _joint_outputs(message, _POINT_FIELDS, names="joint_names", point=_first_point)
    return [_vector_output(message_type, message)]


def _check_fields(message_type: Struct) -> None:
    fields = {field.name: field for field in message_type.fields}
    for name, (kind, length) in _FIELDS.get(message_type.name, {}).items():
        if name not in fields or (fields[name].kind, fields[name].length) != (kind, length):
            raise MessageError(f"its definition of {message_type.name} has no {name} as ROS defines it")
    for field in message_type.fields:
        if field.struct is not None and field.struct.name == _POINT:
            _check_fields(field.struct)


def _first_point(message: Message) -> Message:
    if not message["points"]:
        raise MessageError("its trajectory has no points")
    first: Message = message["points"][0]
    return first


def _joint_outputs(
    message: Message, fields: Sequence[str], *, names: str, point: Callable[[Message], Message]
) -> list[Output]:
    joints = tuple(message[names])
    if len(set(joints)) < len(joints):
        raise MessageError("it names a joint twice")
    present = [field for field in fields if len(point(message)[field])]
    if not joints or not present:
        raise MessageError("its first message has no joints, or none of " + ", ".join(fields))

    def reader(field: str) -> Callable[[Message], np.ndarray]:
        def read(later: Message) -> np.ndarray:
            values, found = point(later)[field], tuple(later[names])
            if len(values) != len(found):
                raise MessageError(f"it has {len(values)} values in {field} for {len(found)} joints")
            if found == joints:
                return np.asarray(values, np.float64)
            missing = [joint for joint in joints if joint not in found]
            if missing:
                raise MessageError(f"the joints {', '.join(missing)} are missing, which the first message has")
            place = {joint: number for number, joint in enumerate(found)}
            return np.array([values[place[joint]] for joint in joints], np.float64)

        return read

    readers = {field: reader(field) for field in present}
    for read in readers.values():
        read(message)
    spec = KeySpec("float64", (len(joints),), names=joints)
    return [Output(field, spec, read, blendable=True) for field, read in readers.items()]


def _vector_output(message_type: Struct, message: Message) -> Output:
    """All numbers of a message in the order of its definition."""
    parts = list(_numbers(message_type, message, ""))
    sizes = [len(values) for _, values, _ in parts]
    if not sum(sizes):
        raise MessageError(f"{message_type.name} has no numbers")
    if sum(sizes) > _LONGEST_VECTOR:
        raise MessageError(f"{message_type.name} has {sum(sizes)} numbers, more than a vector of {_LONGEST_VECTOR}")
    layout = [(path, len(values)) for path, values, _ in parts]
    dtype = _common_dtype([values.dtype for _, values, _ in parts])
    starts = np.cumsum([0, *sizes])
    quaternions = tuple(int(starts[number]) for number, (_, _, begins) in enumerate(parts) if begins)
    scalar = message_type.name.startswith("std_msgs/") and sum(sizes) == 1 and "layout" not in message
    shape = () if scalar else (sum(sizes),)
    unnamed = scalar or "layout" in message  # a MultiArray says nothing of its elements
    names = () if unnamed else tuple(name for path, size in layout for name in _element_names(path, size))

    def read(later: Message) -> np.ndarray:
        found = list(_numbers(message_type, later, ""))
        if [(path, len(values)) for path, values, _ in found] != layout:
            got = sum(len(values) for _, values, _ in found)
            raise MessageError(f"it has {got} numbers, and the first message has {prod(shape)}, or other ones")
        return np.concatenate([values.astype(dtype) for _, values, _ in found]).reshape(shape)

    return Output("", KeySpec(dtype.name, shape, names=names), read, dtype.kind == "f", quaternions)


def _numbers(message_type: Struct, message: Message, prefix: str) -> Iterator[tuple[str, np.ndarray, bool]]:
    """Per field its path, its numbers [n], and whether a quaternion begins there."""
    for number, field in enumerate(message_type.fields):
        path = f"{prefix}{field.name}"
        if _is_no_signal(message_type, field):
            continue
        if field.name not in message:
            raise MessageError(f"it has no field {path}, unlike the first message")
        value = message[field.name]
        if field.struct is not None:
            for place, inner in enumerate(value if field.length is not None else [value]):
                index = f"[{place}]" if field.length is not None else ""
                yield from _numbers(field.struct, inner, f"{path}{index}.")
        else:
            begins = message_type.name == _QUATERNION and number == 0
            dtype = None if field.length is not None else bool if field.kind == "bool" else _scalar_dtype(field.kind)
            yield path, np.atleast_1d(np.asarray(value, dtype)), begins


def _is_no_signal(message_type: Struct, field: Field) -> bool:
    inner = field.struct.name if field.struct else ""
    return (
        field.kind == "string"
        or field.name.endswith("covariance")
        or inner in (HEADER, "builtin_interfaces/msg/Time", "builtin_interfaces/msg/Duration")
        or inner == "std_msgs/msg/MultiArrayLayout"
    )


def _scalar_dtype(kind: str) -> np.dtype:
    return np.dtype({"byte": "uint8", "char": "uint8", "octet": "uint8"}.get(kind, kind))


def _common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """The dtype of all, or float64 where a message mixes them."""
    kinds = set(dtypes)
    return kinds.pop() if len(kinds) == 1 else np.dtype(np.float64)


def _element_names(path: str, size: int) -> list[str]:
    return [path] if size == 1 else [f"{path}[{place}]" for place in range(size)]
