"""Our codec against two others: rosbags (Python) and @foxglove/rosmsg2-serialization (JavaScript, recorded)."""

import json
from pathlib import Path

import pytest
from ros_examples import examples, from_plain

from embodied.real_robot.messages.cdr_reading import decode, decode_ros1
from embodied.real_robot.messages.cdr_writing import encode, encode_ros1
from embodied.real_robot.messages.structs import standard_definitions
from embodied.real_robot.messages.type_hash import type_hash
from embodied.real_robot.messages.values import Message, class_of, message_type

rosbags = pytest.importorskip("rosbags.typesys")

TYPES = sorted(standard_definitions())
FOXGLOVE = json.loads((Path(__file__).parent / "goldens" / "foxglove.json").read_text())
DISTROS = ("HUMBLE", "IRON", "JAZZY", "KILTED")


def typestore(distro):
    """A distribution's types, and those of ours that rosbags has not, from our text."""
    store = rosbags.get_typestore(rosbags.Stores[distro])
    for name in TYPES:
        if name not in store.fielddefs:
            store.register(rosbags.get_types_from_msg(standard_definitions()[name].definition.text, name))
    return store


@pytest.fixture(scope="module")
def humble():
    return typestore("ROS2_HUMBLE")


def as_rosbags(message, store):
    name, fields = message.struct.name, {"seq": 0}  # which a header has in ROS 1
    for field in message.struct.fields:
        value = getattr(message, field.name)
        if isinstance(value, Message):
            value = as_rosbags(value, store)
        elif isinstance(value, list) and value and isinstance(value[0], Message):
            value = [as_rosbags(each, store) for each in value]
        elif field.definition.kind == "byte":
            value -= 256 * (value > 127)  # rosbags gives `byte` a sign
        fields[field.name] = value
    theirs = [each for each, _ in store.fielddefs[name][1]]
    # ROS 1 calls a camera's matrices by capitals.
    return store.types[name](**{each: fields.get(each, fields.get(each.lower())) for each in theirs})


@pytest.mark.parametrize("name", TYPES)
def test_bytes_are_those_of_rosbags_both_ways(name, humble):
    struct = standard_definitions()[name]
    for message in examples(struct, 25):
        packet = encode(message)
        assert packet == bytes(humble.serialize_cdr(as_rosbags(message, humble), name))
        assert decode(packet, class_of(struct)) == message
        big_endian = bytes(humble.serialize_cdr(as_rosbags(message, humble), name, little_endian=False))
        assert decode(big_endian, class_of(struct)) == message
        theirs = humble.deserialize_cdr(packet, name)
        assert bytes(humble.serialize_cdr(theirs, name)) == packet


@pytest.mark.parametrize("name", TYPES)
def test_ros1_bytes_are_those_of_rosbags(name):
    store = typestore("ROS1_NOETIC")
    struct = standard_definitions()[name]
    for message in examples(struct, 10, seed=1):
        for stamp in _stamps(message):  # rosbags gives both numbers a sign
            stamp.sec, stamp.nanosec = stamp.sec & 0x7FFFFFFF, stamp.nanosec & 0x7FFFFFFF
        packet = encode_ros1(message)
        assert packet == bytes(store.serialize_ros1(as_rosbags(message, store), name))
        assert decode_ros1(packet, class_of(struct)) == message


def _stamps(message):
    if message.struct.name.startswith("builtin_interfaces/"):
        yield message
    for field in message.struct.fields:
        value = getattr(message, field.name)
        for each in value if isinstance(value, list) else [value]:
            if isinstance(each, Message):
                yield from _stamps(each)


def test_bytes_are_those_of_foxglove_both_ways():
    assert {case["type"] for case in FOXGLOVE["cases"]} == set(TYPES)
    for case in FOXGLOVE["cases"]:
        message = from_plain(standard_definitions()[case["type"]], case["values"])
        packet = bytes.fromhex(case["packet"])
        assert encode(message) == packet, case["type"]
        assert decode(packet, message_type(case["type"])) == message, case["type"]


@pytest.mark.parametrize("distro", DISTROS)
def test_type_hashes_are_those_of_rosbags(distro):
    store = typestore(f"ROS2_{distro}")
    different = {name for name in TYPES if type_hash(standard_definitions()[name]) != store.hash_rihs01(name)}
    # rosidl_adapter makes a uint8 of `char`; rosbags hashes it as the IDL type char, which no ROS 2 message has.
    assert different == {"std_msgs/msg/Char"}


def test_type_hash_of_an_image_is_the_one_that_ros_prints():
    known = "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"
    assert type_hash(standard_definitions()["sensor_msgs/msg/Image"]) == known
