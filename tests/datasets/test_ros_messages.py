"""ROS messages, decoded and turned into arrays, against rosbags' own serialisers."""

import io
import struct
from functools import cache

import numpy as np
import pytest
from PIL import Image
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from embodied.datasets.importers.ros_arrays import outputs_of
from embodied.datasets.importers.ros_bags import Topic
from embodied.datasets.importers.ros_messages import MessageError, decode, header_stamp, parse_definition, resolve
from embodied.datasets.importers.ros_scan import topic_type

PACKAGES = ("std_msgs", "geometry_msgs", "sensor_msgs", "nav_msgs", "trajectory_msgs", "diagnostic_msgs", "shape_msgs")


@cache
def store(ros1=False):
    return get_typestore(Stores.ROS1_NOETIC if ros1 else Stores.ROS2_HUMBLE)


def kind_of(name, *, ros1=False, types=None):
    definition = (types or store(ros1)).generate_msgdef(name, ros_version=1 if ros1 else 2)[0]
    return topic_type(Topic("/x", name, definition, ros1))


def random_value(types, description, rng):
    node, detail = description
    if node == 1:
        base = detail[0]
        if base == "string":
            return "".join(rng.choice(list("abc é"), int(rng.integers(0, 6))))
        if base == "bool":
            return bool(rng.integers(2))
        return rng.normal() if base.startswith("float") else int(rng.integers(0, 100))
    if node == 2:
        return random_message(types, detail, rng)
    inner, size = detail
    count = size if node == 3 else int(rng.integers(0, 4))
    values = [random_value(types, inner, rng) for _ in range(count)]
    if inner[0] == 1 and inner[1][0] != "string":
        dtype = {"bool": "bool", "byte": "uint8", "char": "uint8"}.get(inner[1][0], inner[1][0])
        return np.array(values, dtype)
    return values


def random_message(types, name, rng):
    return types.types[name](
        **{label: random_value(types, description, rng) for label, description in types.fielddefs[name][1]}
    )


def same(decoded, message):
    """Whether a decoded dictionary has the values of rosbags' dataclass."""
    if isinstance(decoded, dict):
        return all(same(value, getattr(message, name, 0)) for name, value in decoded.items())
    if isinstance(decoded, list):
        return len(decoded) == len(message) and all(map(same, decoded, message))
    if isinstance(decoded, np.ndarray):
        # Bytes for once: `byte` is unsigned in ROS 2, rosbags has it signed.
        kinds = {decoded.dtype.kind, message.dtype.kind}
        return (len(kinds) == 1 or kinds == {"i", "u"}) and decoded.tobytes() == message.tobytes()
    return decoded == message and type(decoded) is type(message)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("form", ["cdr little endian", "cdr big endian", "ros1"])
def test_every_common_type_is_decoded_as_rosbags_does(package, form):
    ros1, rng = form == "ros1", np.random.default_rng(0)
    types = store(ros1)
    names = [name for name in types.fielddefs if name.startswith(f"{package}/msg/")]
    assert len(names) > 2
    for name in names:
        kind = kind_of(name, ros1=ros1)
        message = random_message(types, name, rng)
        if ros1:
            raw = bytes(types.serialize_ros1(message, name))
            reference = types.deserialize_ros1(raw, name)
        else:
            raw = bytes(types.serialize_cdr(message, name, little_endian="little" in form))
            reference = types.deserialize_cdr(raw, name)
        assert same(decode(raw, kind, ros1=ros1), reference), name
        for cut in (len(raw) // 2, len(raw) - 1):
            if 0 <= cut < len(raw) - (0 if ros1 else 3):
                with pytest.raises(MessageError):
                    decode(raw[:cut], kind, ros1=ros1)


def test_header_stamps_are_read_without_decoding():
    for ros1 in (False, True):
        types = store(ros1)
        extra = {"seq": 7} if ros1 else {}
        stamp = types.types["builtin_interfaces/msg/Time"](sec=1_700_000_000, nanosec=5)
        header = types.types["std_msgs/msg/Header"](stamp=stamp, frame_id="base", **extra)
        message = types.types["sensor_msgs/msg/CompressedImage"](header=header, format="", data=np.zeros(3, np.uint8))
        name = "sensor_msgs/msg/CompressedImage"
        raws = (
            [types.serialize_ros1(message, name)]
            if ros1
            else [types.serialize_cdr(message, name, little_endian=little) for little in (True, False)]
        )
        assert kind_of(name, ros1=ros1).has_header
        assert {header_stamp(bytes(raw), ros1=ros1) for raw in raws} == {1_700_000_000_000_000_005}
    assert not kind_of("std_msgs/msg/Bool").has_header


def outputs(name, message, types=None):
    kind = kind_of(name, types=types)
    return {o.field: o for o in outputs_of(kind, decoded(name, message, types))}


def decoded(name, message, types=None):
    types = types or store()
    return decode(bytes(types.serialize_cdr(message, name)), kind_of(name, types=types), ros1=False)


def header():
    return store().types["std_msgs/msg/Header"](
        stamp=store().types["builtin_interfaces/msg/Time"](sec=1, nanosec=2), frame_id=""
    )


def picture(encoding, pixels, *, padding=0, big=False):
    """A sensor_msgs/Image of pixels [H, W, C] whose rows have some bytes more than they need."""
    stored = np.ascontiguousarray(pixels, pixels.dtype.newbyteorder(">" if big else "<"))
    rows = stored.view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=99)
    name = "sensor_msgs/msg/Image"
    return name, store().types[name](
        header=header(),
        height=pixels.shape[0],
        width=pixels.shape[1],
        encoding=encoding,
        is_bigendian=int(big),
        step=rows.shape[1],
        data=rows.reshape(-1),
    )


RNG = np.random.default_rng(1)
COLOR = RNG.integers(0, 256, (3, 5, 3), np.uint8)
GRAY = RNG.integers(0, 256, (3, 5, 1), np.uint8)
DEEP = RNG.integers(0, 1 << 16, (3, 5, 1), np.uint16)
FLOATS = np.array([[[1.5], [np.nan], [np.inf]], [[0.0], [-0.0], [3e-40]]], np.float32)
ALPHA = RNG.integers(0, 256, (3, 5, 4), np.uint8)


@pytest.mark.parametrize("padding", [0, 4])
@pytest.mark.parametrize("big", [False, True])
@pytest.mark.parametrize(
    ("encoding", "pixels", "expected"),
    [
        ("rgb8", COLOR, COLOR),
        ("bgr8", COLOR, COLOR[..., ::-1]),
        ("rgba8", ALPHA, ALPHA[..., :3]),
        ("bgra8", ALPHA, ALPHA[..., 2::-1]),
        ("mono8", GRAY, np.repeat(GRAY, 3, axis=2)),
        ("mono16", DEEP, DEEP[..., 0]),
        ("16UC1", DEEP, DEEP[..., 0]),
        ("32FC1", FLOATS, FLOATS[..., 0]),
        ("8UC1", GRAY, GRAY[..., 0]),
        ("8UC3", COLOR, COLOR),
        ("bayer_rggb8", GRAY, GRAY[..., 0]),
        ("bayer_gbrg16", DEEP, DEEP[..., 0]),
        ("rgb16", np.repeat(DEEP, 3, axis=2), np.repeat(DEEP, 3, axis=2)),
    ],
)
def test_images_of_every_encoding_byte_order_and_row_length(encoding, pixels, expected, big, padding):
    (output,) = outputs(*picture(encoding, pixels, padding=padding, big=big)).values()
    array = output.read(decoded(*picture(encoding, pixels, padding=padding, big=big)))
    assert array.dtype == expected.dtype and array.dtype.isnative and array.tobytes() == expected.tobytes()
    assert (output.spec.dtype, output.spec.shape, output.spec.codec) == (expected.dtype.name, expected.shape, "zstd")


def test_images_that_do_not_fit_their_data_or_are_unknown_are_refused():
    name, message = picture("rgb8", COLOR)
    message.height = 4
    with pytest.raises(MessageError, match="does not fit"):
        outputs(name, message)
    with pytest.raises(MessageError, match="encoding 'h264' is not known"):
        outputs(*picture("h264", COLOR))
    name, message = picture("rgb8", COLOR, padding=6)
    message.data = message.data[:-6]  # some drivers leave out the padding of the last row
    assert (outputs(name, message)[""].read(decoded(name, message)) == COLOR).all()


def encoded(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def compressed(data, form):
    name = "sensor_msgs/msg/CompressedImage"
    return name, store().types[name](header=header(), format=form, data=np.frombuffer(data, np.uint8))


def test_compressed_images():
    smooth = np.tile(np.arange(0, 160, 10, dtype=np.uint8)[:, None, None], (1, 16, 3))
    (jpeg,) = outputs(*compressed(encoded(smooth, "JPEG", quality=95), "bgr8; jpeg compressed bgr8")).values()
    assert jpeg.spec.codec == "jpeg" and jpeg.spec.shape == (16, 16, 3)
    close = jpeg.read(decoded(*compressed(encoded(smooth, "JPEG", quality=95), "jpeg")))
    assert np.abs(close.astype(int) - smooth).max() < 4
    cases = [(COLOR, COLOR), (GRAY[..., 0], np.repeat(GRAY, 3, axis=2)), (DEEP[..., 0], DEEP[..., 0])]
    for pixels, expected in cases:
        (png,) = outputs(*compressed(encoded(pixels, "PNG"), "png")).values()
        array = png.read(decoded(*compressed(encoded(pixels, "PNG"), "png")))
        assert png.spec.codec == "zstd" and array.dtype == expected.dtype and (array == expected).all()


def test_compressed_depth_keeps_its_bits_and_undoes_the_quantisation():
    depth = DEEP[..., 0]
    message = compressed(bytes(12) + encoded(depth, "PNG"), "16UC1; compressedDepth png")
    assert (outputs(*message)[""].read(decoded(*message)) == depth).all()
    scale, offset = np.float32(1000.0), np.float32(20.0)
    quantised = np.array([[0, 120, 520]], np.uint16)
    data = struct.pack("<iff", 0, scale, offset) + encoded(quantised, "PNG")
    array = outputs(*compressed(data, "32FC1; compressedDepth png"))[""].read(
        decoded(*compressed(data, "32FC1; compressedDepth png"))
    )
    assert array.dtype == np.float32 and np.isnan(array[0, 0]) and array[0, 1:] == pytest.approx([10.0, 2.0])


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff garbage", bytes(12) + b"\x89PNG", b"RVL data that is long enough"]
)
def test_compressed_images_that_cannot_be_decoded_are_refused(data):
    with pytest.raises(MessageError):
        outputs(*compressed(data, "jpeg"))


def joint_state(names, position, velocity=(), effort=()):
    name = "sensor_msgs/msg/JointState"
    arrays = {"position": position, "velocity": velocity, "effort": effort}
    fields = {key: np.asarray(values, float) for key, values in arrays.items()}
    return name, store().types[name](header=header(), name=list(names), **fields)


def test_joint_states_keep_the_order_of_the_first_message():
    found = outputs(*joint_state("abc", [1, 2, 3], velocity=[4, 5, 6]))
    assert list(found) == ["position", "velocity"] and found["position"].spec.names == ("a", "b", "c")
    later = decoded(*joint_state("cab", [3, 1, 2], velocity=[6, 4, 5]))
    assert found["position"].read(later).tolist() == [1, 2, 3] and found["velocity"].read(later).tolist() == [4, 5, 6]
    more = decoded(*joint_state("xcab", [9, 3, 1, 2], velocity=[9, 6, 4, 5]))
    assert found["position"].read(more).tolist() == [1, 2, 3]


def test_missing_joints_are_named_and_uneven_arrays_refused():
    read = outputs(*joint_state("abc", [1, 2, 3]))["position"].read
    with pytest.raises(MessageError, match="joints b, c are missing"):
        read(decoded(*joint_state("a", [1])))
    with pytest.raises(MessageError, match="2 values in position for 3 joints"):
        read(decoded(*joint_state("abc", [1, 2])))
    with pytest.raises(MessageError, match="no joints"):
        outputs(*joint_state("", []))


def test_trajectories_give_their_first_point():
    point, name = store().types["trajectory_msgs/msg/JointTrajectoryPoint"], "trajectory_msgs/msg/JointTrajectory"
    later = store().types["builtin_interfaces/msg/Duration"](sec=1, nanosec=0)
    empty = np.zeros(0)
    points = [
        point(
            positions=np.array([k, k + 1.0]), velocities=empty, accelerations=empty, effort=empty, time_from_start=later
        )
        for k in range(2)
    ]
    message = store().types[name](header=header(), joint_names=["a", "b"], points=points)
    found = outputs(name, message)
    assert list(found) == ["positions"] and found["positions"].read(decoded(name, message)).tolist() == [0, 1]


def test_numbers_arrays_poses_and_odometry_become_vectors_with_names():
    make = store().types
    scalar = outputs("std_msgs/msg/Float32", make["std_msgs/msg/Float32"](data=1.5))[""]
    assert (scalar.spec.dtype, scalar.spec.shape, scalar.spec.names) == ("float32", (), ())
    flag = outputs("std_msgs/msg/Bool", make["std_msgs/msg/Bool"](data=True))[""]
    assert flag.spec.dtype == "bool" and flag.read({"data": True}) and not flag.blendable
    layout = make["std_msgs/msg/MultiArrayLayout"](dim=[], data_offset=0)
    array = make["std_msgs/msg/Float64MultiArray"](layout=layout, data=np.array([1.0, 2.0]))
    vector = outputs("std_msgs/msg/Float64MultiArray", array)[""]
    assert (vector.spec.shape, vector.spec.names) == ((2,), ()) and vector.blendable
    array.data = np.zeros(3)
    with pytest.raises(MessageError, match="it has 3 numbers, and the first message has 2"):
        vector.read(decoded("std_msgs/msg/Float64MultiArray", array))
    rng = np.random.default_rng(2)
    for name, size in (("geometry_msgs/msg/PoseStamped", 7), ("geometry_msgs/msg/WrenchStamped", 6)):
        assert outputs(name, random_message(store(), name, rng))[""].spec.shape == (size,)
    odometry = outputs("nav_msgs/msg/Odometry", random_message(store(), "nav_msgs/msg/Odometry", rng))[""]
    assert odometry.spec.shape == (13,) and odometry.quaternions == (3,)  # without covariances
    assert odometry.spec.names[2:4] == ("pose.pose.position.z", "pose.pose.orientation.x")


def test_types_that_only_the_recording_defines():
    types = get_typestore(Stores.EMPTY)
    text = (
        "string label\nfloat32[3] force\nFinger[] fingers\nbool on\n"
        + "=" * 80
        + "\nMSG: my_msgs/Finger\nfloat64 gap\n"
    )
    types.register(get_types_from_msg(text, "my_msgs/msg/Hand"))
    fingers = [types.types["my_msgs/msg/Finger"](gap=k / 2) for k in range(2)]
    message = types.types["my_msgs/msg/Hand"](
        label="left", force=np.arange(3, dtype=np.float32), fingers=fingers, on=True
    )
    output = outputs("my_msgs/msg/Hand", message, types)[""]
    assert output.spec.names == ("force[0]", "force[1]", "force[2]", "fingers[0].gap", "fingers[1].gap", "on")
    assert output.spec.dtype == "float64"  # of several kinds
    assert output.read(decoded("my_msgs/msg/Hand", message, types)).tolist() == [0, 1, 2, 0, 0.5, 1]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("float64 x\nOther y\n", "definition of a/msg/Other is not in the recording"),
        ("Loop again\n", "contains itself"),
        ("!!", "cannot be parsed"),
        ("x" * (1 << 17), "definition has 131072 characters"),
    ],
)
def test_definitions_that_cannot_be_used_say_why(text, reason):
    with pytest.raises(MessageError, match=reason):
        resolve("a/msg/Loop", parse_definition(text, "a/msg/Loop"), ros1=False)


def test_a_definition_that_multiplies_itself_is_refused_before_it_fills_the_memory():
    levels = ["L1[50] a\nL1[50] b\n"] + [
        f"{'=' * 80}\nMSG: a/L{k}\nL{k + 1}[50] a\nL{k + 1}[50] b\n" for k in range(1, 30)
    ]
    text = "".join(levels) + f"{'=' * 80}\nMSG: a/L30\nuint8 x\n"
    with pytest.raises(MessageError, match="more than"):
        resolve("a/msg/L0", parse_definition(text, "a/msg/L0"), ros1=False)
    empty = "E[200] a\n" + f"{'=' * 80}\nMSG: a/E\nF[200] a\n{'=' * 80}\nMSG: a/F\nG[200] a\n{'=' * 80}\nMSG: a/G\n"
    kind = resolve("a/msg/X", parse_definition(empty, "a/msg/X"), ros1=True)  # 8 million elements of no bytes
    with pytest.raises(MessageError, match="more than"):
        decode(bytes(300), kind, ros1=True)


def test_a_definition_that_lies_about_a_known_type_is_refused():
    kind = resolve("sensor_msgs/msg/Image", parse_definition("uint32 height\n", "sensor_msgs/msg/Image"), ros1=False)
    with pytest.raises(MessageError, match="has no width as ROS defines it"):
        outputs_of(kind, {"height": 1})


def test_other_encapsulations_and_wrong_definitions_are_refused():
    name = "std_msgs/msg/Float64"
    raw = bytes(store().serialize_cdr(store().types[name](data=1.0), name))
    with pytest.raises(MessageError, match="encapsulation 0007"):
        decode(b"\x00\x07" + raw[2:], kind_of(name), ros1=False)
    with pytest.raises(MessageError, match="left over"):
        decode(raw, kind_of("std_msgs/msg/Bool"), ros1=False)
