"""zarr itself reads and writes JPEG frames through our codec, and damaged ones are errors."""

import io

import numpy as np
import pytest
import zarr
from PIL import Image

import embodied.datasets.store.jpeg_codec
from embodied.datasets.store.chunk_codecs import DamagedChunkError, JpegChunks, decode_jpeg, encode_jpeg
from embodied.datasets.store.episode_index import KeySpec

SPEC = KeySpec("uint8", (16, 24, 3), "jpeg")


def picture(length):
    y, x = np.mgrid[:16, :24]
    return np.stack([np.stack([8 * x + t, 9 * y, 5 * (x + y)], axis=-1) for t in range(length)]).astype(np.uint8)


def test_zarr_writes_and_reads_it(tmp_path):
    array = zarr.create_array(
        str(tmp_path / "a"),
        shape=(10, 16, 24, 3),
        chunks=(4, 16, 24, 3),
        dtype="uint8",
        serializer=embodied.datasets.store.jpeg_codec.JpegCodec(),
        compressors=None,
    )
    array[:] = picture(10)
    read = zarr.open_array(str(tmp_path / "a"), mode="r")[3:9]
    assert np.abs(read.astype(int) - picture(10)[3:9]).mean() < 2
    chunk = next(path for path in (tmp_path / "a" / "c").rglob("*") if path.is_file())
    chunk.write_bytes(chunk.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"embodied\.jpeg"):
        zarr.open_array(str(tmp_path / "a"), mode="r")[:]


def test_it_takes_pictures_only(tmp_path):
    for shape, dtype in (((4, 8, 8), "uint8"), ((4, 8, 8, 4), "uint8"), ((4, 8, 8, 3), "uint16")):
        with pytest.raises(ValueError, match="needs uint8"):
            zarr.create_array(
                str(tmp_path / "a"),
                shape=shape,
                chunks=shape,
                dtype=dtype,
                serializer=embodied.datasets.store.jpeg_codec.JpegCodec(),
                compressors=None,
            )


def test_any_frames_of_a_chunk_decode_by_themselves():
    codec = JpegChunks(SPEC, 8)
    data = codec.encode(codec.prepare(picture(6)))
    whole = np.empty((8, 16, 24, 3), np.uint8)
    codec.decode(data, 0, 8, whole)
    assert not whole[6:].any()  # frames that nobody has written
    part = np.empty((2, 16, 24, 3), np.uint8)
    codec.decode(data, 3, 5, part)
    assert np.array_equal(part, whole[3:5])


def test_it_loses_and_shows_what_pillow_does_at_this_quality():
    noisy = (picture(1)[0] + np.random.default_rng(0).integers(0, 30, SPEC.shape)).clip(0, 255).astype(np.uint8)
    handle = io.BytesIO()
    Image.fromarray(noisy).save(handle, "JPEG", quality=96, subsampling=0)
    assert encode_jpeg(noisy) == handle.getvalue()  # TurboJPEG's quick transform would give other bytes
    mirrored = noisy[:, ::-1]
    assert encode_jpeg(mirrored) == encode_jpeg(mirrored.copy())
    for subsampling in (0, 1, 2):
        handle = io.BytesIO()
        Image.fromarray(noisy).save(handle, "JPEG", quality=80, subsampling=subsampling)
        assert np.array_equal(decode_jpeg(handle.getvalue(), SPEC.shape), np.asarray(Image.open(handle)))


def test_a_torn_frame_is_never_given_as_a_gray_one():
    noisy = np.random.default_rng(0).integers(0, 256, SPEC.shape, dtype=np.uint8)
    data, rng = encode_jpeg(noisy), np.random.default_rng(1)
    for length in range(1, len(data) - 1):
        with pytest.raises(DamagedChunkError):
            decode_jpeg(data[:length], SPEC.shape)
    for length in range(700, len(data) - 60, 20):
        with pytest.raises(DamagedChunkError, match="no JPEG"):
            decode_jpeg(data[:length] + b"\xff\xd9", SPEC.shape)  # as if it had ended there
    for _ in range(300):  # any damage is an error, or leaves a picture of the right size
        broken = bytearray(data)
        broken[rng.integers(len(data))] ^= 1 << rng.integers(8)
        try:
            assert decode_jpeg(bytes(broken), SPEC.shape).shape == SPEC.shape
        except DamagedChunkError:
            continue


def test_frames_are_decoded_where_they_are_wanted():
    out = np.full((3, *SPEC.shape), 7, np.uint8)
    frame = decode_jpeg(encode_jpeg(picture(1)[0]), SPEC.shape, out=out[1])
    assert frame.base is out and np.array_equal(out[1], decode_jpeg(encode_jpeg(picture(1)[0]), SPEC.shape))
    assert (out[[0, 2]] == 7).all()
    assert not decode_jpeg(b"", SPEC.shape, out=out[2]).any()


def test_damaged_chunks_and_frames_are_named():
    codec = JpegChunks(SPEC, 4)
    data = codec.encode(codec.prepare(picture(4)))
    for wrong in (b"", data[:10], data[:-1], data + b"x", b"\xff" * 16 + data[16:]):
        with pytest.raises(DamagedChunkError):
            codec.payload(wrong, 0, 4)
    frame = encode_jpeg(picture(1)[0])
    for wrong in (b"x", frame[:50], frame[: len(frame) // 2]):
        with pytest.raises(DamagedChunkError, match="no JPEG"):
            decode_jpeg(wrong, SPEC.shape)
    with pytest.raises(DamagedChunkError, match="RGB of 16 x 24 pixels"):
        decode_jpeg(frame, (8, 8, 3))
