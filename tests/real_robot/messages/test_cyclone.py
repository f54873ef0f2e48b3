"""Our codec against Cyclone DDS' typed Python API, a third one; and what XCDR version 2 would do."""

import numpy as np
import pytest
from ros_examples import examples

from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.definition import NUMBERS
from embodied.real_robot.messages.structs import standard_definitions
from embodied.real_robot.messages.values import Message, class_of

idl = pytest.importorskip("cyclonedds.idl")

from cyclonedds.idl import types  # noqa: E402

TYPES = sorted(standard_definitions())
# Whose bytes differ in XCDR 2: 8-byte numbers aligned to 4, and lists of text or messages with a length in front.
SAME_IN_XCDR2 = {
    "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/LaserScan", "sensor_msgs/msg/Joy",
    "geometry_msgs/msg/Twist", "geometry_msgs/msg/Pose", "std_msgs/msg/Bool", "std_msgs/msg/String",
}  # fmt: skip
DIFFERENT_IN_XCDR2 = {
    "sensor_msgs/msg/JointState", "trajectory_msgs/msg/JointTrajectory", "std_msgs/msg/Float64MultiArray",
    "geometry_msgs/msg/TwistStamped", "geometry_msgs/msg/PoseStamped", "sensor_msgs/msg/CameraInfo",
    "nav_msgs/msg/Odometry", "tf2_msgs/msg/TFMessage", "control_msgs/msg/JointJog",
    "diagnostic_msgs/msg/DiagnosticArray",
}  # fmt: skip
_MADE = {}


def typed(struct):
    """The type as Cyclone's Python API wants it."""
    if struct.name not in _MADE:
        fields = {}
        for field in struct.fields:
            kind, shape = field.definition.kind, field.definition.shape
            made = typed(field.struct) if field.struct is not None else basic(kind)
            if shape == "array":
                made = types.array[made, field.definition.size]
            fields[field.name] = types.sequence[made] if shape == "sequence" else made
        package, _, name = struct.name.split("/")
        _MADE[struct.name] = idl.make_idl_struct(f"{name}_", f"{package}::msg::dds_::{name}_", fields)
    return _MADE[struct.name]


def basic(kind):
    return {"string": str, "bool": bool, "char": types.uint8}.get(kind) or getattr(types, kind)


def as_typed(message):
    fields = {}
    for field in message.struct.fields:
        value = getattr(message, field.name)
        if isinstance(value, Message):
            value = as_typed(value)
        elif isinstance(value, list):
            value = [as_typed(each) if isinstance(each, Message) else each for each in value]
        fields[field.name] = value.tolist() if isinstance(value, np.ndarray) else value
    return typed(message.struct)(**fields)


@pytest.mark.parametrize("name", TYPES)
def test_bytes_are_those_of_cyclone(name):
    struct = standard_definitions()[name]
    for message in examples(struct, 5, seed=2):
        packet = bytes(as_typed(message).serialize(use_version_2=False))
        assert encode(message) == packet
        assert decode(packet, class_of(struct)) == message


def test_xcdr2_is_refused_and_would_corrupt():
    different = set()
    for name in TYPES:
        struct = standard_definitions()[name]
        for message in examples(struct, 8, seed=3):
            packet = bytes(as_typed(message).serialize(use_version_2=True))
            with pytest.raises(MessageError, match="only CDR"):
                decode(packet, class_of(struct))
            if packet[4:] == encode(message)[4:]:
                continue
            different.add(name)
            try:  # what a reader makes of it that does not look at the encapsulation
                assert decode(b"\x00\x01\x00\x00" + packet[4:], class_of(struct)) != message
            except MessageError:
                continue
    assert different >= DIFFERENT_IN_XCDR2 and not different & SAME_IN_XCDR2
    assert len(different) == 34


def test_numbers_table_is_complete():
    assert {kind for name in TYPES for kind in _kinds(standard_definitions()[name])} <= {*NUMBERS, "string"}


def _kinds(struct):
    return {field.definition.kind for field in struct.fields if field.struct is None}
