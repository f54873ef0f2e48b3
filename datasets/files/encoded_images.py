"""Image files and .npy files in memory to arrays that have the same bits.

| content | array |
| --- | --- |
| 8-bit gray, colour, colour with alpha; palettes, CMYK and the like as colour | uint8 [H, W], [H, W, 3], [H, W, 4] |
| 16-bit gray (depth), 16-bit colour PNG and TIFF | uint16 [H, W], [H, W, 3], [H, W, 4] |
| 32-bit TIFF | float32 or int32 [H, W] |
| .npy | its own dtype and shape; never pickled objects |
"""

from __future__ import annotations

import struct
import tokenize
import warnings
import zlib
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any

import av
import numpy as np
from PIL import Image

from embodied.core.errors import UserError
from embodied.datasets.files.image_files import square
from embodied.datasets.store.chunk_codecs import DamagedChunkError, decode_jpeg

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "GIF")
_DEEP = {"RGB": "rgb48le", "RGBA": "rgba64le"}  # Pillow would cut 16-bit colours to 8 bits, PyAV does not
_ORIENTATION = 0x0112  # the EXIF tag
_MOST_BESIDE = 1 << 16  # bytes; telephones put whole films behind a picture
_UPRIGHT = {
    2: lambda image: image[:, ::-1],
    3: lambda image: image[::-1, ::-1],
    4: lambda image: image[::-1],
    5: lambda image: image.swapaxes(0, 1),
    6: lambda image: image[::-1].swapaxes(0, 1),
    7: lambda image: image[::-1, ::-1].swapaxes(0, 1),
    8: lambda image: image[:, ::-1].swapaxes(0, 1),
}
# Each of Pillow's readers raises errors of its own on damaged files.
_DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, TypeError, ArithmeticError, AttributeError),
    *(struct.error, zlib.error, Image.DecompressionBombError, av.error.FFmpegError),
)
# NumPy evaluates the header as Python literals, and repairs old ones with Python's tokenizer.
_NPY_DAMAGE = (
    *(ValueError, TypeError, SyntaxError, LookupError, OverflowError, RecursionError, MemoryError),
    tokenize.TokenError,
)


def is_lossy(data: bytes) -> bool:
    """Whether the bytes of an image file are of a kind that does not keep every bit: JPEG, lossy WebP."""
    return data[:3] == b"\xff\xd8\xff" or (data[8:12] == b"WEBP" and b"VP8L" not in data[:4096])


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Args:
        pixels: as the table above says.
        file: the file as it was, where a store can keep it and give back exactly these pixels: a whole, upright
            baseline JPEG in colour without much beside the picture. None for anything else.
    """

    pixels: np.ndarray
    file: bytes | None = None


def decode_image(data: bytes, *, where: str, upright: bool = False, enough: int | None = None) -> np.ndarray:
    """The pixels of `decode_picture`."""
    return decode_picture(data, where=where, upright=upright, enough=enough).pixels


def decode_picture(data: bytes, *, where: str, upright: bool = False, enough: int | None = None) -> Picture:
    """The first image in the bytes of a file.

    Args:
        where: names it in messages.
        upright: turn it as its EXIF data says.
        enough: a JPEG may come out smaller, by a power of two, with sides of at least this; saves time.

    Raises:
        UserError: it is damaged, of an unknown format or larger than 179 million pixels.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged metadata: the pixels count
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                if enough is None and (whole := _whole_jpeg(image, data, upright=upright)) is not None:
                    return Picture(whole, data)
                if enough is not None:
                    image.draft("RGB", (enough, enough))
                array = _pixels(image, data)
                turn = _UPRIGHT.get(image.getexif().get(_ORIENTATION, 1)) if upright else None
    except _DAMAGE as error:
        raise UserError(f"{where} cannot be read as an image ({error}): replace it or leave it out") from error
    return Picture(np.ascontiguousarray(turn(array) if turn else array))


def as_rgb(image: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3] of uint8 [H, W] or [H, W, C]; alpha is dropped."""
    if image.ndim == 2:
        return np.repeat(image[:, :, None], 3, axis=2)
    return np.ascontiguousarray(image[:, :, :3])


def as_square(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, 3] of uint8 [H, W, 3]: the short side resized to `size`, then the centre."""
    return square(Image.fromarray(image), size)


def decode_npy(data: bytes, *, where: str) -> np.ndarray:
    """The array in the bytes of a .npy file, little endian.

    Raises:
        UserError: it holds objects (which only unpickling would read), records or text, or is damaged.
    """
    handle = BytesIO(data)
    try:
        version = np.lib.format.read_magic(handle)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version[0]}.{version[1]}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about headers in Python 2's way
            shape, fortran, dtype = read(handle)
        if dtype.kind not in "biuf":
            raise ValueError(f"it holds {'pickled objects' if dtype.hasobject else dtype}, not numbers")
        if len(data) - handle.tell() != prod(shape) * dtype.itemsize or min(shape, default=1) < 0:
            raise ValueError(f"its size is not that of {dtype} {list(shape)}")
        flat = np.frombuffer(data, dtype, offset=handle.tell())
        array = flat.reshape(shape, order="F" if fortran else "C")
    except _NPY_DAMAGE as error:
        raise UserError(f"{where} cannot be read as a .npy array ({error}): replace it or leave it out") from error
    return np.ascontiguousarray(array, dtype.newbyteorder("<"))


def _whole_jpeg(image: Any, data: bytes, *, upright: bool) -> np.ndarray | None:
    """The pixels of a file that a store can keep; None of others, damage that Pillow passes over included."""
    shape = (image.height, image.width, 3)
    plain = image.format == "JPEG" and image.mode == "RGB" and "progressive" not in image.info
    if not plain or len(data) > prod(shape) + _MOST_BESIDE:
        return None
    # Metadata that nobody asked to follow may be damaged: then it is not looked into.
    if "exif" in image.info and (not upright or image.getexif().get(_ORIENTATION, 1) in _UPRIGHT):
        return None
    try:
        return decode_jpeg(data, shape)
    except DamagedChunkError:
        return None


def _pixels(image: Any, data: bytes) -> np.ndarray:
    deep = any(";16" in str(part) for tile in image.tile for part in tile)  # as the file has it, before decoding
    if deep and image.mode in _DEEP:
        return _deep_pixels(data, str(image.format).lower(), _DEEP[image.mode])
    if deep and not image.mode.startswith("I"):
        raise ValueError(f"16-bit {image.mode} is not supported")
    if image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.uint16)
    if image.mode in ("L", "RGB", "RGBA", "F", "I"):
        return np.asarray(image)
    return np.asarray(image.convert("L" if image.mode in ("1", "LA", "La") else "RGB"))


def _deep_pixels(data: bytes, codec: str, pixels: str) -> np.ndarray:
    decoder = av.CodecContext.create(codec, "r")
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    if not frames:
        raise ValueError("it holds no frame")
    return frames[0].to_ndarray(format=pixels)
