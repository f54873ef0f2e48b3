"""How the frames of one chunk become bytes: zstd (lossless) or one JPEG per frame; a CRC-32C seals either.

The bytes are those of zarr's codecs `bytes, zstd, crc32c` and `embodied.jpeg, crc32c` (see `jpeg_codec`), so zarr reads
them; this package does without it, which costs a millisecond per call. A *payload* is what a codec keeps of
frames: an array [T, ...], or the JPEG bytes of each frame. A chunk always has its full number of frames; those that no
episode has filled yet are zeros, or JPEGs of no bytes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, Protocol, TypeVar

import google_crc32c
import numpy as np
import simplejpeg
from numcodecs.zstd import Zstd

from embodied.datasets.store.episode_index import JPEG, KeySpec
from embodied.datasets.store.planar_frames import Frames, PlanarFrames, Planes
from embodied.datasets.store.store_header import ZSTD_LEVEL

Payload = np.ndarray | list[bytes]
CRC_BYTES = 4
JPEG_QUALITY = 96  # below that TurboJPEG takes its quick transform, which loses a fifth more for as many bytes
_MOST_THREADS = 8
_BATCHES = 6  # for each thread
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class DamagedChunkError(Exception):
    """Bytes that are not a chunk; says in what way."""


def seal(data: bytes) -> bytes:
    """The bytes with their checksum behind them."""
    return data + google_crc32c.value(data).to_bytes(CRC_BYTES, "little")


def unseal(data: bytes) -> bytes:
    """The bytes without their checksum.

    Raises:
        DamagedChunkError: it does not match.
    """
    if not data:
        raise DamagedChunkError("it is missing")
    inner = data[:-CRC_BYTES]
    if len(data) < CRC_BYTES or google_crc32c.value(inner).to_bytes(CRC_BYTES, "little") != data[-CRC_BYTES:]:
        raise DamagedChunkError("its checksum does not match")
    return inner


class ChunkCodec(Protocol):
    """What the store asks of a codec."""

    def prepare(self, frames: Frames) -> Payload:
        """The payload of frames [T, ...]."""
        ...

    def update(self, digest: Any, payload: Payload) -> None:
        """Feed a payload to a hash; how an episode's payload is cut makes no difference."""
        ...

    def encode(self, payload: Payload) -> bytes:
        """The bytes of a chunk that starts with this payload."""
        ...

    def payload(self, data: bytes, start: int, stop: int) -> Payload:
        """The payload of frames `start` to `stop` of a chunk; raises DamagedChunkError."""
        ...

    def decode(self, data: bytes, start: int, stop: int, out: np.ndarray) -> None:
        """Write frames `start` to `stop` of a chunk to `out`; raises DamagedChunkError."""
        ...


class ZstdChunks:
    """Arrays, compressed without loss."""

    def __init__(self, spec: KeySpec, chunk: int) -> None:
        self._spec, self._chunk = spec, chunk
        self._stored = np.dtype(spec.dtype).newbyteorder("<")

    def prepare(self, frames: Frames) -> np.ndarray:
        return np.ascontiguousarray(frames)

    def update(self, digest: Any, payload: Payload) -> None:
        digest.update(np.ascontiguousarray(payload).data.cast("B"))

    def encode(self, payload: Payload) -> bytes:
        whole = np.zeros((self._chunk, *self._spec.shape), self._stored)
        whole[: len(payload)] = payload
        return bytes(Zstd(level=ZSTD_LEVEL).encode(whole))

    def payload(self, data: bytes, start: int, stop: int) -> np.ndarray:
        whole = np.zeros((self._chunk, *self._spec.shape), self._stored)
        try:
            Zstd().decode(data, whole.reshape(-1).view(np.uint8))  # refuses more than fits
        except (ValueError, RuntimeError) as error:
            raise DamagedChunkError(f"it does not decompress: {error}") from error
        return whole[start:stop].astype(self._spec.dtype, copy=False)

    def decode(self, data: bytes, start: int, stop: int, out: np.ndarray) -> None:
        out[...] = self.payload(data, start, stop)


class JpegChunks:
    """A JPEG of quality 96 per frame: lengths (uint32, little-endian), then bytes.

    Colour has full resolution, or that of the planes where frames come as such.
    """

    def __init__(self, spec: KeySpec, chunk: int) -> None:
        self._shape, self._chunk = spec.shape, chunk

    def prepare(self, frames: Frames) -> list[bytes]:
        if isinstance(frames, PlanarFrames):
            return list(in_threads(lambda number: encode_planes(frames.planes(number)), range(len(frames))))
        return list(in_threads(encode_jpeg, frames))

    def update(self, digest: Any, payload: Payload) -> None:
        for frame in payload:
            digest.update(len(frame).to_bytes(4, "little"))
            digest.update(frame)

    def encode(self, payload: Payload) -> bytes:
        lengths = np.zeros(self._chunk, "<u4")
        lengths[: len(payload)] = [len(frame) for frame in payload]
        return b"".join([lengths.tobytes(), *payload])

    def payload(self, data: bytes, start: int, stop: int) -> list[bytes]:
        head = 4 * self._chunk
        if len(data) < head:
            raise DamagedChunkError(f"it has {len(data)} bytes")
        ends = head + np.cumsum(np.frombuffer(data, "<u4", self._chunk), dtype=np.int64)
        if ends[-1] != len(data):
            raise DamagedChunkError(f"it has {len(data)} bytes, and its frames need {ends[-1]}")
        begins = [head, *ends[:-1].tolist()]
        return [data[begins[frame] : int(ends[frame])] for frame in range(start, stop)]

    def decode(self, data: bytes, start: int, stop: int, out: np.ndarray) -> None:
        for number, frame in enumerate(self.payload(data, start, stop)):
            decode_jpeg(frame, self._shape, out=out[number])


def codec_of(spec: KeySpec, chunk: int) -> ChunkCodec:
    """The codec of a key with `chunk` frames per chunk."""
    return JpegChunks(spec, chunk) if spec.codec == JPEG else ZstdChunks(spec, chunk)


def content_hash(codec: ChunkCodec, payload: Payload) -> str:
    """SHA-256 (hex) of a payload."""
    digest = sha256()
    codec.update(digest, payload)
    return digest.hexdigest()


def encode_jpeg(frame: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as the bytes of a JPEG file; other threads go on meanwhile."""
    pixels = np.ascontiguousarray(frame)
    return bytes(simplejpeg.encode_jpeg(pixels, quality=JPEG_QUALITY, colorspace="RGB", colorsubsampling="444"))


def encode_planes(planes: Planes) -> bytes:
    """Planes as the bytes of a JPEG file with colour at half the resolution; other threads go on meanwhile."""
    luma, blue, red = planes
    height, width = luma.shape
    if height % 2 or width % 2:  # TurboJPEG reads two luma for each chroma, beyond the end of an odd side too
        luma = np.pad(luma, ((0, height % 2), (0, width % 2)), mode="edge")[:height, :width]
    return bytes(simplejpeg.encode_jpeg_yuv_planes(luma, blue, red, quality=JPEG_QUALITY))


def decode_jpeg(data: bytes, shape: tuple[int, ...], *, out: np.ndarray | None = None) -> np.ndarray:
    """The uint8 frame of exactly `shape` [H, W, 3]; no bytes are a black one. Other threads go on meanwhile.

    Args:
        out: contiguous, of `shape`; where the frame is put, and then returned.

    Raises:
        DamagedChunkError: the bytes are no such picture, or a part of it is torn or missing.
    """
    frame = np.empty(shape, np.uint8) if out is None else out
    if not data:
        frame[...] = 0
        return frame
    check_jpeg(data, shape)
    try:
        # `strict`: libjpeg itself would paint what is missing grey, and go on.
        simplejpeg.decode_jpeg(data, colorspace="RGB", buffer=frame, strict=True)
    except ValueError as error:
        raise DamagedChunkError(f"a frame is no JPEG: {error}") from error
    return frame


def check_jpeg(data: bytes, shape: tuple[int, ...]) -> None:
    """Look at the head of a JPEG file, without decoding it.

    Raises:
        DamagedChunkError: it is no picture of `shape` [H, W, 3].
    """
    try:
        height, width, colors, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as error:
        raise DamagedChunkError(f"a frame is no JPEG: {error}") from error
    mode = "RGB" if colors in ("RGB", "YCbCr") else colors  # files keep RGB as YCbCr
    if (mode, height, width) != ("RGB", *shape[:2]):
        raise DamagedChunkError(f"a frame is {mode} of {height} x {width} pixels")


def in_threads(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """`map` in as many threads as there are cores (the codecs let go of the interpreter); in this one for one item."""
    work = list(items)
    if len(work) < 2:
        yield from map(function, work)
        return
    threads = min(_MOST_THREADS, len(os.sched_getaffinity(0)), len(work))
    # Handing over one item costs as much as a tenth of compressing it; the last batches must not leave a thread idle.
    size = max(1, len(work) // (_BATCHES * threads))
    batches = [work[first : first + size] for first in range(0, len(work), size)]
    # Made anew at each call: a pool that lives on would not survive a fork.
    with ThreadPoolExecutor(threads) as pool:
        for results in pool.map(lambda batch: list(map(function, batch)), batches):
            yield from results
