"""The images in ROS messages: sensor_msgs/Image with every encoding of uniform elements, and CompressedImage."""

from __future__ import annotations

import re
import struct

import numpy as np

from embodied.core.errors import UserError
from embodied.datasets.files.encoded_images import Picture, as_rgb, decode_picture, is_lossy
from embodied.datasets.importers.ros_messages import Message, MessageError
from embodied.datasets.store.episode_index import KeySpec

_DTYPES = {"8U": "u1", "8S": "i1", "16U": "u2", "16S": "i2", "32U": "u4", "32S": "i4", "32F": "f4", "64F": "f8"}
_NAMED = {
    "mono8": ("u1", 1),
    "mono16": ("u2", 1),
    "yuv422": ("u1", 2),
    "yuv422_yuy2": ("u1", 2),
    "uyvy": ("u1", 2),
    "yuyv": ("u1", 2),
}
_COLOR = re.compile(r"(rgb|bgr)(a?)(8|16)")
_OPENCV = re.compile(r"(8U|8S|16U|16S|32U|32S|32F|64F)C(\d)")
_BAYER = re.compile(r"bayer_(?:rggb|bggr|gbrg|grbg)(8|16)")
_PNG = b"\x89PNG"
_PICTURES = (_PNG, b"\xff\xd8", b"II*\x00", b"MM\x00*")  # and how JPEG and TIFF begin
_DEPTH_HEADER = 12  # bytes before the PNG in compressedDepth: a format number and two quantisation parameters


def image_spec(array: np.ndarray, *, lossy: bool) -> KeySpec:
    """How the store should keep such images: as JPEG only what was JPEG."""
    return KeySpec(array.dtype.name, array.shape, codec="jpeg" if lossy else "zstd")


def read_image(message: Message) -> np.ndarray:
    """The pixels of a sensor_msgs/Image, without the padding of its rows, in this machine's byte order.

    rgb8, bgr8, rgba8, bgra8 become uint8 [H, W, 3] in RGB without alpha; so does mono8, three times the same. 16-bit
    colours are uint16 [H, W, 3]. mono16, bayer and OpenCV's 16UC1, 32FC1 ... keep their bits, [H, W] or [H, W, C].

    Raises:
        MessageError: an encoding that is not known, or sizes that do not fit the data.
    """
    height, width, step, encoding = message["height"], message["width"], message["step"], message["encoding"]
    dtype, channels = _layout(encoding)
    row = width * channels * np.dtype(dtype).itemsize
    if not height or not width:
        raise MessageError(f"its image has the size {width} x {height}")
    if step < row or len(message["data"]) < step * (height - 1) + row:
        raise MessageError(
            f"its image of {width} x {height} in {encoding} does not fit {len(message['data'])} bytes, {step} a row"
        )
    data = message["data"]
    if len(data) < step * height:  # some drivers leave the padding of the last row out
        data = np.concatenate([data, np.zeros(step * height - len(data), np.uint8)])
    rows = data[: step * height].reshape(height, step)[:, :row]
    order = ">" if message["is_bigendian"] else "<"
    pixels = np.ascontiguousarray(rows).view(order + dtype).reshape(height, width, channels)
    return _in_rgb(pixels.astype(pixels.dtype.newbyteorder("="), copy=False), encoding)


def _layout(encoding: str) -> tuple[str, int]:
    if match := _COLOR.fullmatch(encoding):
        return f"u{int(match[3]) // 8}", 4 if match[2] else 3
    if match := _OPENCV.fullmatch(encoding):
        return _DTYPES[match[1]], int(match[2])
    if match := _BAYER.fullmatch(encoding):
        return f"u{int(match[1]) // 8}", 1
    if encoding in _NAMED:
        return _NAMED[encoding]
    raise MessageError(f"its encoding {encoding[:40]!r} is not known")


def _in_rgb(pixels: np.ndarray, encoding: str) -> np.ndarray:
    if match := _COLOR.fullmatch(encoding):
        return pixels[..., 2::-1] if match[1] == "bgr" else pixels[..., :3]
    if encoding == "mono8":
        return np.repeat(pixels, 3, axis=2)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def read_compressed(message: Message) -> tuple[Picture, bool]:
    """The image in a sensor_msgs/CompressedImage, and whether the compression lost anything (JPEG).

    Pictures of 8 bits are uint8 [H, W, 3], of 16 bits uint16 [H, W] or [H, W, 3]. Depth as
    compressed_depth_image_transport writes it is uint16 [H, W] from 16UC1, and from 32FC1 float32 [H, W] in metres,
    nan where there was none.

    Raises:
        MessageError: another compression, or data that cannot be decoded.
    """
    data = message["data"].tobytes()
    if data.startswith(_PICTURES):
        picture = _decoded(data)
        pixels = picture.pixels
        return Picture(as_rgb(pixels) if pixels.dtype == np.uint8 else pixels, picture.file), is_lossy(data)
    if data[_DEPTH_HEADER:].startswith(_PNG):
        return Picture(_depth(data, message["format"])), False
    raise MessageError(
        f"its compression {message['format'][:40]!r} is neither JPEG, PNG, TIFF nor compressedDepth in PNG"
    )


def _decoded(data: bytes) -> Picture:
    try:
        return decode_picture(data, where="its image")
    except UserError as error:
        raise MessageError(str(error).partition(" <")[0]) from error


def _depth(data: bytes, format_text: str) -> np.ndarray:
    quantised = _decoded(data[_DEPTH_HEADER:]).pixels
    if quantised.ndim != 2 or quantised.dtype != np.uint16:
        raise MessageError("its compressed depth is no PNG of 16 bits")
    if not format_text.startswith("32FC1"):
        return quantised
    scale, offset = struct.unpack_from("<ff", data, 4)  # quantised = scale / depth + offset
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.float32(scale) / (quantised.astype(np.float32) - np.float32(offset))
    return np.where(quantised == 0, np.float32(np.nan), depth).astype(np.float32)
