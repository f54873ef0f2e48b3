"""Pixels of camera messages."""

import io

import numpy as np
import pytest
from PIL import Image as Picture

from embodied.real_robot.messages.cdr_reading import MessageError, decode
from embodied.real_robot.messages.cdr_writing import encode
from embodied.real_robot.messages.images import pixels
from embodied.real_robot.messages.values import message_type

IMAGE, COMPRESSED = message_type("sensor_msgs/msg/Image"), message_type("sensor_msgs/msg/CompressedImage")
RGB = np.random.default_rng(0).integers(0, 256, (6, 5, 3), np.uint8)


def sent(**fields):
    message = IMAGE(height=6, width=5, **fields)
    return decode(encode(message), IMAGE)


def test_rgb8_is_a_view_of_the_packet():
    message = sent(encoding="rgb8", step=15, data=RGB)
    found = pixels(message)
    assert np.array_equal(found, RGB) and np.shares_memory(found, message.data)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"encoding": "bgr8", "step": 15, "data": RGB[..., ::-1]}, RGB),
        ({"encoding": "rgb8", "step": 17, "data": np.pad(RGB.reshape(6, 15), ((0, 0), (0, 2)))}, RGB),
        ({"encoding": "mono8", "step": 5, "data": RGB[..., 0]}, np.repeat(RGB[..., :1], 3, axis=2)),
        ({"encoding": "16UC1", "step": 10, "data": RGB[..., 0].astype("<u2").tobytes()}, RGB[..., 0].astype("u2")),
        (
            {"encoding": "16UC1", "step": 10, "is_bigendian": 1, "data": RGB[..., 0].astype(">u2").tobytes()},
            RGB[..., 0].astype("u2"),
        ),
    ],
)
def test_encodings(fields, expected):
    found = pixels(sent(**fields))
    assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_a_compressed_image():
    file = io.BytesIO()
    Picture.fromarray(RGB).save(file, "PNG")
    message = COMPRESSED(format="png", data=np.frombuffer(file.getvalue(), np.uint8))
    assert np.array_equal(pixels(decode(encode(message), COMPRESSED)), RGB)


@pytest.mark.parametrize(
    "fields",
    [
        {"encoding": "nothing", "step": 15, "data": RGB},
        {"encoding": "rgb8", "step": 15, "data": RGB[:-1]},
        {"encoding": "rgb8", "step": 3, "data": RGB},
        {"encoding": "rgb8", "step": 2**32 - 1, "data": RGB},
    ],
)
def test_what_is_no_image(fields):
    with pytest.raises(MessageError):
        pixels(sent(**fields))


def test_damaged_files_and_other_messages():
    with pytest.raises(MessageError):
        pixels(COMPRESSED(format="jpeg", data=np.frombuffer(b"\xff\xd8\xff\xe0 nothing", np.uint8)))
    with pytest.raises(TypeError, match="got a std_msgs/msg/Bool"):
        pixels(message_type("std_msgs/msg/Bool")())
