"""Chunks of zarr version 2 to their bytes, never more of them than the chunk has room for.

The codecs are an allow-list, for a zarr array may name any registered numcodecs codec, `pickle` among them, and
numcodecs allocates whatever size a chunk claims. JPEG 2000, JPEG XL and their like, which UMI and diffusion_policy use
under the names of imagecodecs' numcodecs, are decoded by imagecodecs itself: no codec needs to be registered anywhere.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Mapping
from math import prod
from typing import Any

import numcodecs.blosc
import numcodecs.lz4
import numcodecs.zstd
import numpy as np

from embodied.core.errors import MissingExtraError

_IMAGES = "imagecodecs_"
_PICTURES = frozenset({"jpeg", "jpeg2k", "jpegxl", "jpegls", "png", "webp"})
_STREAMS = frozenset({"zlib", "gzip", "bz2", "lzma"})
CODECS = frozenset({"blosc", "lz4", "zstd", *_STREAMS, *(_IMAGES + name for name in _PICTURES)})
_BLOSC_HEADER = struct.Struct("<4B3I")  # version, its version, flags, item size; bytes, block size, compressed bytes
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_J2K_SIZE = b"\xff\x4f\xff\x51"  # start of a JPEG 2000 codestream, followed by the image's size


def is_image(compressor: Mapping[str, Any] | None) -> bool:
    """Whether chunks are pictures."""
    return compressor is not None and str(compressor.get("id")).startswith(_IMAGES)


def is_lossy(compressor: Mapping[str, Any] | None) -> bool:
    """Whether a compressor, by its configuration, does not keep every bit."""
    name = str((compressor or {}).get("id")).removeprefix(_IMAGES)
    config = compressor or {}
    level = config.get("level")
    if name == "jpegxl":
        return not config.get("lossless") and not (isinstance(level, int) and level < 0)
    if name == "jpeg2k":
        return bool(level) and not config.get("reversible")
    return name in ("jpeg", "webp") or (name == "jpegls" and bool(level))


def check_available(compressor: Mapping[str, Any] | None) -> None:
    """Raise MissingExtraError if the compressor needs imagecodecs, which is not installed."""
    if is_image(compressor):
        _imagecodecs()


def decode_chunk(
    data: bytes, compressor: Mapping[str, Any] | None, dtype: np.dtype[Any], shape: tuple[int, ...], *, order: str
) -> np.ndarray:
    """A chunk [*shape] of its bytes in the store.

    Raises:
        ValueError, RuntimeError and others: the chunk is damaged or of another size.
    """
    if compressor is not None and is_image(compressor):
        return _picture(data, compressor, dtype, shape).reshape(shape)
    size = dtype.itemsize * prod(shape)
    raw = data if compressor is None else _decompressed(data, str(compressor["id"]), size)
    if len(raw) != size:
        raise ValueError(f"{len(raw)} bytes, expected {size}")
    return np.frombuffer(raw, dtype).reshape(shape, order="F" if order == "F" else "C")


def _decompressed(data: bytes, codec: str, size: int) -> bytes:
    if codec in _STREAMS:
        return _streamed(data, codec, size)
    claimed = _claimed_size(data, codec)
    if claimed != size:
        raise ValueError(f"{codec} claims {claimed} bytes, expected {size}")
    decompress = {"blosc": numcodecs.blosc, "lz4": numcodecs.lz4, "zstd": numcodecs.zstd}[codec].decompress
    return bytes(decompress(data))


def _streamed(data: bytes, codec: str, size: int) -> bytes:
    """At most one byte more than `size`, however much the stream holds."""
    if codec == "bz2":
        return bz2.BZ2Decompressor().decompress(data, size + 1)
    if codec == "lzma":
        return lzma.LZMADecompressor().decompress(data, size + 1)
    return zlib.decompressobj(zlib.MAX_WBITS | 32).decompress(data, size + 1)  # 32: zlib or gzip


def _claimed_size(data: bytes, codec: str) -> int:
    """What the header says the chunk decompresses to."""
    if codec == "lz4":
        return int.from_bytes(data[:4], "little") if len(data) > 4 else -1
    if codec == "blosc":
        *_, size, block, compressed = _BLOSC_HEADER.unpack_from(data)
        if compressed != len(data) or block > size:
            raise ValueError("its blosc header contradicts itself")
        return int(size)
    if data[:4] != _ZSTD_MAGIC:
        raise ValueError("no zstd frame")
    descriptor = data[4]
    single, width = descriptor >> 5 & 1, (0, 2, 4, 8)[descriptor >> 6]
    start = 5 + (not single) + (0, 1, 2, 4)[descriptor & 3]
    if not width and single:
        width = 1
    if not width or len(data) < start + width:
        raise ValueError("its zstd header has no size")
    return int.from_bytes(data[start : start + width], "little") + (256 if width == 2 else 0)


def _picture(data: bytes, compressor: Mapping[str, Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> np.ndarray:
    name = str(compressor["id"]).removeprefix(_IMAGES)
    wanted = tuple(size for size in shape[:-1] if size > 1) + shape[-1:]  # as they were squeezed when encoded
    wanted = wanted[:-1] if wanted[-1:] == (1,) else wanted
    if name == "jpeg2k":  # its decoder compares sizes only after decoding
        place = data.find(_J2K_SIZE) + 8
        right, bottom, left, top = struct.unpack_from(">4I", data, place)
        if place < 8 or (right - left) * (bottom - top) > prod(wanted):
            raise ValueError(f"an image of {bottom - top} x {right - left} pixels, expected {list(wanted)}")
    out = np.empty(wanted, dtype)
    decoded: np.ndarray = getattr(_imagecodecs(), f"{name}_decode")(data, out=out)
    if decoded.shape != out.shape or decoded.dtype != out.dtype:
        raise ValueError(f"an image {decoded.dtype} {list(decoded.shape)}, expected {dtype} {list(wanted)}")
    return decoded


def _imagecodecs() -> Any:
    try:
        import imagecodecs
    except ImportError as error:
        raise MissingExtraError("imagecodecs", "umi") from error
    return imagecodecs
