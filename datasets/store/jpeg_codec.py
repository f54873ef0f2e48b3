"""The zarr codec `embodied.jpeg`, so that zarr reads and writes the JPEG frames of an episode store.

Importing this module registers it. A chunk [T, H, W, 3] of uint8 becomes T lengths (uint32, little-endian) and the
bytes of T JPEG files; see `chunk_codecs`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from zarr.abc.codec import ArrayBytesCodec
from zarr.core.array_spec import ArraySpec
from zarr.core.buffer import Buffer, NDBuffer
from zarr.registry import register_codec

from embodied.datasets.store.chunk_codecs import DamagedChunkError, JpegChunks
from embodied.datasets.store.episode_index import JPEG, KeySpec
from embodied.datasets.store.store_header import JPEG_CODEC


@dataclass(frozen=True)
class JpegCodec(ArrayBytesCodec):
    """One JPEG per frame."""

    is_fixed_size = False

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls()

    def to_dict(self) -> dict[str, Any]:
        return {"name": JPEG_CODEC}

    def validate(self, *, shape: tuple[int, ...], dtype: Any, chunk_grid: Any) -> None:
        """Refuse what is no picture.

        Raises:
            ValueError: it is none.
        """
        if dtype.to_native_dtype() != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"{JPEG_CODEC} needs uint8 [T, H, W, 3], got {dtype} {list(shape)}")

    async def _decode_single(self, chunk_data: Buffer, chunk_spec: ArraySpec) -> NDBuffer:
        def decode() -> np.ndarray:
            frames = np.empty(chunk_spec.shape, np.uint8)
            try:
                _codec(chunk_spec).decode(chunk_data.to_bytes(), 0, len(frames), frames)
            except DamagedChunkError as error:
                raise ValueError(f"{JPEG_CODEC}: {error}") from error
            return frames

        frames: Any = await asyncio.to_thread(decode)
        return chunk_spec.prototype.nd_buffer.from_ndarray_like(frames)

    async def _encode_single(self, chunk_data: NDBuffer, chunk_spec: ArraySpec) -> Buffer:
        def encode() -> bytes:
            codec = _codec(chunk_spec)
            return codec.encode(codec.prepare(np.asarray(chunk_data.as_numpy_array())))

        return chunk_spec.prototype.buffer.from_bytes(await asyncio.to_thread(encode))

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: ArraySpec) -> int:
        raise NotImplementedError("the size of JPEG files depends on what they show")


def _codec(chunk_spec: ArraySpec) -> JpegChunks:
    return JpegChunks(KeySpec("uint8", chunk_spec.shape[1:], JPEG), chunk_spec.shape[0])


register_codec(JPEG_CODEC, JpegCodec)
