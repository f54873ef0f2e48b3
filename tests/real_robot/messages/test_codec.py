"""What a packet may do to us, what a message may be, and the definitions' language."""

import random
import struct as packing
import tracemalloc

import numpy as np
import pytest
from ros_examples import examples, random_message

from embodied.core.errors import UsageError, UserError
from embodied.real_robot.messages.cdr_reading import MAX_VALUES, MessageError, decode, decode_ros1
from embodied.real_robot.messages.cdr_writing import encode, encode_ros1
from embodied.real_robot.messages.definition import DefinitionError, parse_definition
from embodied.real_robot.messages.structs import Definitions, standard_definitions
from embodied.real_robot.messages.values import (
    class_of,
    duration_message,
    header_message,
    message_type,
    nanoseconds,
    time_message,
)

IMAGE, JOINTS = message_type("sensor_msgs/msg/Image"), message_type("sensor_msgs/msg/JointState")
STRING, TRANSFORMS = message_type("std_msgs/msg/String"), message_type("tf2_msgs/msg/TFMessage")
HEAD = b"\x00\x01\x00\x00"


def image(pixels):
    height, width, _ = pixels.shape
    return IMAGE(
        header=header_message(5, "c"), height=height, width=width, encoding="rgb8", step=3 * width, data=pixels
    )


def test_an_image_is_a_view_of_its_packet():
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    packet = bytearray(encode(image(pixels)))
    decoded = decode(packet, IMAGE)
    assert np.array_equal(decoded.data.reshape(4, 4, 3), pixels)
    packet[-1] = 99
    assert decoded.data[-1] == 99
    assert not decode(bytes(packet), IMAGE).data.flags.writeable


def test_numbers_are_views_too():
    packet = encode(JOINTS(name=["a"], position=[1.5, -2.0]))
    position = decode(packet, JOINTS).position
    assert position.base is not None and position.dtype == np.float64 and position.tolist() == [1.5, -2.0]


@pytest.mark.parametrize(("read", "write"), [(decode, encode), (decode_ros1, encode_ros1)])
def test_cut_short_anywhere_is_an_error_that_says_so(read, write):
    for name in standard_definitions():
        made = class_of(standard_definitions()[name])
        for message in [made()] if write is encode_ros1 else examples(made.struct, 3, seed=4):
            packet = write(message)
            for length in range(0, len(packet), 1 + len(packet) // 60):
                if write is encode or length:
                    with pytest.raises(MessageError):
                        read(packet[:length], made)


def test_random_damage_never_crashes_hangs_or_allocates_much():
    rng = random.Random(0)
    names = sorted(standard_definitions())
    tracemalloc.start()
    outcomes = {True: 0, False: 0}
    for _ in range(4000):
        made = class_of(standard_definitions()[rng.choice(names)])
        packet = bytearray(encode(random_message(made.struct, rng)))
        for _ in range(rng.randint(1, 6)):
            place = rng.randrange(len(packet))
            if rng.random() < 0.5:
                packet[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            else:
                packet[place : place + 4] = packing.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1, 2**28)))
        try:
            decode(bytes(packet), made)
            outcomes[True] += 1
        except MessageError:
            outcomes[False] += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert min(outcomes.values()) > 300
    assert peak < 20e6


def test_noise_is_no_message():
    rng = random.Random(1)
    for name in standard_definitions():
        made = class_of(standard_definitions()[name])
        for _ in range(20):
            noise = HEAD + rng.randbytes(rng.randint(0, 200))
            try:
                decode(noise, made)
            except MessageError:
                continue


@pytest.mark.parametrize(
    ("packet", "made", "message"),
    [
        (b"", STRING, "missing"),
        (b"\x00\x07\x00\x00" + bytes(8), STRING, "only CDR"),
        (b"\x00\x03\x00\x00" + bytes(8), STRING, "only CDR"),
        (HEAD + packing.pack("<I", 2**32 - 1), STRING, "data should have 4294967295 elements"),
        (HEAD + packing.pack("<I", 2**31) + bytes(8), TRANSFORMS, "transforms should have 2147483648 elements"),
        (HEAD + packing.pack("<I", 3) + b"abc", STRING, "without its end"),
        (encode(STRING(data="abc")) + bytes(8), STRING, "8 bytes are left over"),
        (encode(JOINTS()), IMAGE, "ends after"),
    ],
)
def test_errors_say_what_is_wrong(packet, made, message):
    with pytest.raises(MessageError, match=message):
        decode(packet, made)


def test_many_small_values_are_refused_before_they_are_made():
    names = HEAD + bytes(12) + packing.pack("<I", MAX_VALUES + 1) + packing.pack("<I", 0) * (MAX_VALUES + 1)
    with pytest.raises(MessageError, match=f"more than {MAX_VALUES} values"):
        decode(names, JOINTS)


def test_a_name_that_is_no_utf8_does_not_stop_a_robot():
    assert decode(HEAD + packing.pack("<I", 3) + b"\xe4b\x00", STRING).data == "\ufffdb"


@pytest.mark.parametrize("padding", [0, 1, 2, 3])
def test_padding_behind_a_message_is_allowed(padding):
    assert decode(encode(STRING(data="hello")) + bytes(padding), STRING).data == "hello"


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (JOINTS(name="abc"), "name: expected several values"),
        (JOINTS(name=["a", 3]), "name: expected a str"),
        (JOINTS(position=["x"]), "position: expected numbers of float64"),
        (JOINTS(header=header_message(0)), None),
        (JOINTS(header=3), "header: expected a std_msgs/msg/Header"),
        (STRING(data="a\0b"), "NUL"),
        (message_type("std_msgs/msg/Bool")(data=1), "expected a bool"),
        (message_type("std_msgs/msg/UInt8")(data=256), "data: "),
        (message_type("std_msgs/msg/UInt8MultiArray")(data=[1, 300]), "data: expected numbers of uint8"),
        (message_type("std_msgs/msg/UInt8MultiArray")(data=np.array([1.5])), "data: expected numbers of uint8"),
        (message_type("sensor_msgs/msg/CameraInfo")(k=[1.0]), "k: expected 9 elements, got 1"),
        (JOINTS(header=header_message(2**70)), "header.stamp.sec: "),
    ],
)
def test_a_value_that_does_not_fit_is_named(message, found):
    if found is None:
        encode(message)
        return
    with pytest.raises(MessageError, match=found):
        encode(message)


def test_messages_have_defaults_and_compare():
    assert message_type("geometry_msgs/msg/Pose")().orientation.w == 1.0
    one, two = JOINTS(position=[1.0, np.nan]), JOINTS(position=np.array([1.0, np.nan]))
    assert one == two and one != JOINTS() and one != 3
    assert JOINTS().name is not JOINTS().name
    assert message_type("diagnostic_msgs/msg/DiagnosticStatus").struct.constants["ERROR"] == 2
    with pytest.raises(UsageError, match="did you mean sensor_msgs/msg/JointState"):
        message_type("sensor_msgs/msg/JointStates")


def test_times():
    assert nanoseconds(time_message(1_700_000_000_123_456_789)) == 1_700_000_000_123_456_789
    assert nanoseconds(duration_message(-0.25)) == -250_000_000
    assert duration_message(-0.25).sec == -1


TEXT = """
# a comment
uint8 A=3       # a constant
string S = "x # y"
float64 X=-1e3
bool[4] flags [true, false, true, true]
string<=5[<=2] names   # bounded twice
int32 count 7
geometry_msgs/Point[] points
Header header
Inner inner
"""


def test_definitions_parse():
    parsed = parse_definition(TEXT, "mine/msg/Outer")
    assert parsed.constants == {"A": 3, "S": "x # y", "X": -1000.0}
    found = {each.name: (each.kind, each.shape, each.size, each.string_bound, each.default) for each in parsed.fields}
    assert found == {
        "flags": ("bool", "array", 4, 0, [True, False, True, True]),
        "names": ("string", "sequence", 2, 5, None),
        "count": ("int32", "single", 0, 0, 7),
        "points": ("geometry_msgs/msg/Point", "sequence", 0, 0, None),
        "header": ("std_msgs/msg/Header", "single", 0, 0, None),
        "inner": ("mine/msg/Inner", "single", 0, 0, None),
    }


@pytest.mark.parametrize(
    "text", ["int32", "int32 3x", "wstring x", "int32[0] x", "nothing x", "int32 x\nint32 x", "int32<=3 x", "Bad() x",
             "int32[2] x __import__('os')", "bool x maybe", "int32[99999999] x", "x" * 70_000],
)  # fmt: skip
def test_what_is_no_definition_is_an_error(text):
    with pytest.raises(DefinitionError):
        parse_definition(text, "mine/msg/Wrong")


def test_definitions_of_a_folder(tmp_path):
    folder = tmp_path / "mine" / "msg"
    folder.mkdir(parents=True)
    (folder / "Outer.msg").write_text(TEXT)
    (folder / "Inner.msg").write_text("float32 x 2.5\n")
    made = class_of(Definitions(tmp_path)["mine/msg/Outer"])
    message = made(names=["abcde"], points=[message_type("geometry_msgs/msg/Point")(x=1.0)])
    again = decode(encode(message), made)
    assert again == message and again.count == 7 and again.inner.x == 2.5
    with pytest.raises(MessageError, match="more than 5"):
        encode(made(names=["abcdef"]))
    with pytest.raises(MessageError, match="at most 2 elements, got 3"):
        encode(made(names=["a"] * 3))
    (folder / "Inner.msg").write_text("Outer outer\n")
    with pytest.raises(UserError, match="contains itself"):
        Definitions(tmp_path)["mine/msg/Outer"]
    (folder / "Inner.msg").write_text("Missing thing\n")
    with pytest.raises(UserError, match="mine/msg/Missing, which mine/msg/Inner contains"):
        Definitions(tmp_path)["mine/msg/Outer"]
    with pytest.raises(UserError, match="no <package>"):
        Definitions(tmp_path / "mine")
