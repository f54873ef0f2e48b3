"""Zarrs of diffusion_policy and UMI come in as zarr and imagecodecs wrote them; broken or hostile ones do no harm."""

import json
import pickle
import random
import sys
import zipfile

import imagecodecs.numcodecs
import numcodecs
import numpy as np
import pytest
import zarr

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.files.zarr_v2_files import FolderFiles, ZarrArray
from embodied.datasets.importers.diffusion_policy_zarr import FORMAT, open_source
from embodied.datasets.store.episode_index import KeySpec

ENDS = [5, 6, 13]
imagecodecs.numcodecs.register_codecs(["imagecodecs_jpegxl", "imagecodecs_jpeg2k", "imagecodecs_jpeg"], verbose=False)


def arrays(frames=13):
    rng = np.random.default_rng(0)
    smooth = np.linspace(0, 200, 16 * 20 * 3).reshape(16, 20, 3)
    return {
        "action": rng.normal(size=(frames, 2)).astype(np.float32),
        "camera0_rgb": (smooth + rng.integers(0, 50, (frames, 1, 1, 3))).astype(np.uint8),
        "robot0_eef_pos": rng.normal(size=(frames, 3)),
        "stage": np.zeros(frames, np.int64),
    }


def write(store, *, images=None, ends=ENDS, chunks=4, extra=None):
    """A zarr of version 2 by zarr itself; `images` compresses the camera's, one frame per chunk."""
    root = zarr.open_group(store, mode="w", zarr_format=2)
    data, meta = root.create_group("data"), root.create_group("meta")
    for name, array in {**arrays(), **(extra or {})}.items():
        picture = name.startswith("camera") and images is not None
        created = data.create_array(
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=(1 if picture else chunks, *array.shape[1:]),
            compressors=images if picture else numcodecs.Blosc("zstd"),
        )
        created[:] = array
    ends = np.asarray(ends, np.int64)
    meta.create_array("episode_ends", shape=ends.shape, dtype=ends.dtype, chunks=ends.shape, compressors=None)[:] = ends


def write_to(path, **options):
    """To a folder, or a zip file that is called so."""
    if path.suffix != ".zip":
        return write(path, **options)
    with zarr.storage.ZipStore(path, mode="w") as store:
        return write(store, **options)


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "replay.zarr")
    return tmp_path / "replay.zarr"


def read_all(source):
    found = {}
    for episode in source.episodes():
        blocks = list(episode.blocks())
        found[episode.origin] = {key: np.concatenate([block[key] for block in blocks]) for key in source.keys}
        assert len(next(iter(found[episode.origin].values()))) == episode.length
    source.close()
    return found


def test_every_value_arrives(folder):
    assert FORMAT.recognizes(folder)
    source = open_source(folder, fps=10, task="push the T")
    assert (source.fps, source.robot, len(source)) == (10.0, "", 3)
    assert source.keys["camera0_rgb"] == KeySpec("uint8", (16, 20, 3)) and source.keys["stage"] == KeySpec("int64", ())
    assert [(e.origin, e.length, e.task) for e in source.episodes()] == [
        ("episode_000000", 5, "push the T"),
        ("episode_000001", 1, "push the T"),
        ("episode_000002", 7, "push the T"),
    ]
    for (start, stop), got in zip([(0, 5), (5, 6), (6, 13)], read_all(source).values(), strict=True):
        for key, values in arrays().items():
            assert got[key].dtype == values.dtype and np.array_equal(got[key], values[start:stop])


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("codec", "kept"),
    [
        (imagecodecs.numcodecs.Jpegxl(level=90, lossless=False), "jpeg"),
        (imagecodecs.numcodecs.Jpegxl(lossless=True), "zstd"),
        (imagecodecs.numcodecs.Jpeg2k(level=50), "jpeg"),
        (imagecodecs.numcodecs.Jpeg2k(reversible=True), "zstd"),
        (imagecodecs.numcodecs.Jpeg(level=95), "jpeg"),
    ],
    ids=["jpegxl", "jpegxl-lossless", "jpeg2k", "jpeg2k-lossless", "jpeg"],
)
def test_images_are_decoded_as_imagecodecs_does(tmp_path, codec, kept, zipped):
    path = tmp_path / ("replay.zarr.zip" if zipped else "replay.zarr")
    write_to(path, images=codec)
    assert FORMAT.recognizes(path)
    source = open_source(path, fps=59.94)
    assert source.keys["camera0_rgb"] == KeySpec("uint8", (16, 20, 3), codec=kept)
    got = np.concatenate([episode["camera0_rgb"] for episode in read_all(source).values()])
    truth = arrays()["camera0_rgb"]
    assert np.array_equal(got, [codec.decode(codec.encode(frame)) for frame in truth])
    assert np.abs(got.astype(int) - truth).max() <= (0 if kept == "zstd" else 12)


def test_umis_own_configuration_of_jpeg_xl_is_understood(tmp_path):
    write(tmp_path / "a.zarr", images=imagecodecs.numcodecs.Jpegxl(level=90, lossless=False))
    metadata = tmp_path / "a.zarr" / "data" / "camera0_rgb" / ".zarray"
    unset = ("effort", "distance", "decodingspeed", "photometric", "planar", "usecontainer", "index", "numthreads")
    config = {"id": "imagecodecs_jpegxl", "level": 99, "lossless": False, "keeporientation": None}
    config |= dict.fromkeys(unset)
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "compressor": config}))
    source = open_source(tmp_path / "a.zarr", fps=60)
    assert source.keys["camera0_rgb"].codec == "jpeg" and len(read_all(source)) == 3


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("chunks", [(3, 4, 2), (7, 5, 3), (20, 9, 9), (1, 5, 1)])
@pytest.mark.parametrize("dtype", ["<f4", ">i2", "|b1", "|u1"])
def test_any_chunking_reads_as_zarr_reads_it(tmp_path, dtype, chunks, order):
    values = np.random.default_rng(0).integers(0, 2, (11, 5, 3)).astype(dtype)
    array = zarr.create_array(
        tmp_path / "x", shape=values.shape, chunks=chunks, dtype=dtype, order=order, zarr_format=2, fill_value=0
    )
    array[:] = values
    ours = ZarrArray(FolderFiles(tmp_path), "x")
    for start, stop in ((0, 11), (2, 3), (5, 10), (10, 11), (0, 1), (6, 8)):
        got = ours.read(start, stop)
        assert got.dtype.isnative and np.array_equal(got, array[start:stop])


@pytest.mark.parametrize(
    "compressor",
    [
        None,
        numcodecs.Blosc("lz4", 5, numcodecs.Blosc.SHUFFLE),
        numcodecs.Blosc("zlib", 1, numcodecs.Blosc.BITSHUFFLE),
        numcodecs.Zstd(3),
        numcodecs.LZ4(),
        numcodecs.Zlib(),
        numcodecs.GZip(),
        numcodecs.BZ2(),
        numcodecs.LZMA(),
    ],
    ids=lambda codec: "raw" if codec is None else codec.codec_id,
)
@pytest.mark.parametrize("rows", [1, 30, 5000])
def test_every_supported_codec_reads_as_zarr_reads_it(tmp_path, compressor, rows):
    values = np.random.default_rng(0).integers(0, 9, (2 * rows, 7)).astype(np.float64)
    zarr.create_array(
        tmp_path / "x", data=values, chunks=(rows, 7), compressors=compressor, zarr_format=2, fill_value=1
    )
    assert np.array_equal(ZarrArray(FolderFiles(tmp_path), "x").read(1, 2 * rows), values[1:])


def test_a_missing_picture_is_no_black_one(tmp_path):
    write(tmp_path / "a.zarr", images=imagecodecs.numcodecs.Jpegxl())
    (tmp_path / "a.zarr" / "data" / "camera0_rgb" / "5.0.0.0").unlink()
    first, second, _ = open_source(tmp_path / "a.zarr", fps=10).episodes()
    assert list(first.blocks())
    with pytest.raises(UserError, match=r"camera0_rgb/5\.0\.0\.0 is missing"):
        list(second.blocks())


def test_chunks_that_zarr_left_away_have_the_fill_value(tmp_path, caplog):
    array = zarr.create_array(tmp_path / "x", shape=(9, 2), chunks=(3, 2), dtype="f4", zarr_format=2, fill_value=2.5)
    array[3:6] = 1
    assert np.array_equal(ZarrArray(FolderFiles(tmp_path), "x").read(2, 7)[:, 0], [2.5, 1, 1, 1, 2.5])
    assert caplog.text.count("is not there, so its values are taken to be 2.5") == 1


def test_long_episodes_come_in_blocks(folder, monkeypatch):
    whole = read_all(open_source(folder, fps=10))
    monkeypatch.setattr("embodied.datasets.importers.foreign_keys.BLOCK_BYTES", 2000)
    source = open_source(folder, fps=10)
    assert [len(block["action"]) for block in list(source.episodes())[2].blocks()] == [2, 2, 2, 1]
    for origin, found in read_all(source).items():
        assert all(np.array_equal(found[key], whole[origin][key]) for key in found)


def test_a_zip_may_hold_the_folder(tmp_path, folder):
    path = tmp_path / "pusht.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, f"pusht/replay.zarr/{file.relative_to(folder)}")
    assert FORMAT.recognizes(path)
    assert np.array_equal(read_all(open_source(path, fps=10))["episode_000002"]["action"], arrays()["action"][6:])


def test_the_rate_is_asked_for_with_proposals(folder):
    with pytest.raises(UsageError, match=r"options\.fps=10 for diffusion_policy.*options\.fps=59\.94 for UMI"):
        open_source(folder)
    with pytest.raises(UsageError, match="fps must be"):
        open_source(folder, fps="fast")
    assert "stage" not in open_source(folder, fps=10, exclude=["stage"]).keys


@pytest.mark.parametrize(
    ("ends", "message"),
    [
        ([5, 5, 13], "episode 1 ends at 5 after 5"),
        ([5, 4, 13], "episode 1 ends at 4 after 5"),
        ([0, 13], "episode 0 ends at 0 after 0"),
        ([-3, 13], "episode 0 ends at -3 after 0"),
        ([5, 14], r"data/action has 13 frames, and meta/episode_ends ends at 14"),
        ([5, 12], r"data/action has 13 frames, and meta/episode_ends ends at 12"),
    ],
)
def test_bogus_episode_ends_are_refused(tmp_path, ends, message):
    write(tmp_path / "a.zarr", ends=ends)
    with pytest.raises(UserError, match=message):
        open_source(tmp_path / "a.zarr", fps=10)


class Bomb:
    def __reduce__(self):
        return (sys.exit, ("unpickled",))


@pytest.mark.parametrize("place", ["compressor", "filters"])
def test_nothing_is_unpickled(folder, place):
    metadata = folder / "data" / "action" / ".zarray"
    codec = {"id": "pickle", "protocol": 5}
    changed = {"compressor": codec} if place == "compressor" else {"filters": [codec]}
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), **changed}))
    (folder / "data" / "action" / "0.0").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match=r"compressed with 'pickle'|has filters"):
        open_source(folder, fps=10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dtype": "|O"}, "only numbers"),
        ({"dtype": [["a", "<f4"]]}, "only numbers"),
        ({"shape": [13, -2]}, "must list whole numbers"),
        ({"shape": "13"}, "must list whole numbers"),
        ({"shape": [13], "chunks": [4, 2]}, "has chunks"),
        ({"chunks": [1 << 30, 2]}, "too large or too many"),
        ({"shape": [13, 1 << 30], "chunks": [1, 1]}, "too large or too many"),
        ({"compressor": {"id": "blosc2"}}, "compressed with 'blosc2'"),
        ({"dimension_separator": ".."}, "has chunks"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(folder, changes, message):
    metadata = folder / "data" / "action" / ".zarray"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), **changes}))
    with pytest.raises(UserError, match=message):
        open_source(folder, fps=10)


def test_frames_claimed_out_of_nothing_are_refused(tmp_path):
    path, frames = tmp_path / "a.zarr", 10**12
    root = zarr.open_group(path, mode="w", zarr_format=2)
    root.create_group("data").create_array("x", shape=(frames, 8), chunks=(1000, 8), dtype="f8")
    root.create_group("meta").create_array("episode_ends", data=np.array([frames]))
    with pytest.raises(UserError, match="claims 1,000,000,000,000 frames"):
        open_source(path, fps=10)


@pytest.mark.parametrize("codec", ["blosc", "zstd", "lz4", "zlib", "gzip", "bz2", "lzma"])
def test_chunks_that_decompress_to_more_than_they_should_are_refused(tmp_path, codec):
    configs = {"blosc": {"id": "blosc"}, "lz4": {"id": "lz4"}}
    compressor = numcodecs.get_codec(configs.get(codec, {"id": codec, **({"level": 1} if codec != "lzma" else {})}))
    zarr.create_array(tmp_path / "x", data=np.ones((8, 2)), chunks=(4, 2), compressors=compressor, zarr_format=2)
    (tmp_path / "x" / "0.0").write_bytes(compressor.encode(np.zeros(50_000_000, np.uint8)))
    array = ZarrArray(FolderFiles(tmp_path), "x")
    assert np.array_equal(array.read(4, 8), np.ones((4, 2)))
    with pytest.raises(UserError, match=r"x/0\.0 is damaged"):
        array.read(0, 4)


@pytest.mark.parametrize("name", ["jpegxl", "jpeg2k", "jpeg"])
def test_images_larger_than_they_should_be_are_refused(tmp_path, name):
    codec = {"jpegxl": imagecodecs.numcodecs.Jpegxl, "jpeg2k": imagecodecs.numcodecs.Jpeg2k}.get(
        name, imagecodecs.numcodecs.Jpeg
    )()
    write(tmp_path / "a.zarr", images=codec)
    chunk = tmp_path / "a.zarr" / "data" / "camera0_rgb" / "5.0.0.0"
    chunk.write_bytes(codec.encode(np.zeros((900, 900, 3), np.uint8)))
    first, second, _ = open_source(tmp_path / "a.zarr", fps=10).episodes()
    assert list(first.blocks())
    with pytest.raises(UserError, match=r"camera0_rgb/5\.0\.0\.0 is damaged"):
        list(second.blocks())


def test_what_is_no_such_zarr_is_not_recognised(tmp_path, monkeypatch):
    zarr.open_group(tmp_path / "other.zarr", mode="w", zarr_format=2)
    (tmp_path / "text.zip").write_text("no zip")
    assert not any(FORMAT.recognizes(tmp_path / name) for name in ("other.zarr", "text.zip", "none"))
    with pytest.raises(UserError, match="no array meta/episode_ends"):
        open_source(tmp_path / "other.zarr", fps=10)
    with pytest.raises(UserError, match=r"text\.zip is damaged"):
        open_source(tmp_path / "text.zip", fps=10)
    with pytest.raises(UserError, match="no file or folder"):
        open_source(tmp_path / "none", fps=10)
    write(tmp_path / "a.zarr", images=imagecodecs.numcodecs.Jpegxl())
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(MissingExtraError, match=r"embodied-learning\[umi\]"):
        open_source(tmp_path / "a.zarr", fps=10)


@pytest.mark.parametrize("kind", ["blosc", "jpegxl", "jpeg2k", "zip"])
def test_damaged_files_give_one_message_or_read(tmp_path, kind):
    codecs = {"jpegxl": imagecodecs.numcodecs.Jpegxl(), "jpeg2k": imagecodecs.numcodecs.Jpeg2k(level=50)}
    path = tmp_path / ("a.zarr.zip" if kind == "zip" else "a.zarr")
    write_to(path, images=codecs.get(kind))
    files = [path] if kind == "zip" else [file for file in sorted(path.rglob("*")) if file.is_file()]
    pictures = [file for file in files if "camera" in str(file)]
    outcomes = {"read": 0, "refused": 0}
    for seed in range(40):
        rng = random.Random(seed)
        file = rng.choice(pictures if kind in codecs and seed % 2 else files)
        whole = file.read_bytes()
        data = bytearray(whole[: rng.randrange(len(whole))] if seed % 4 == 0 else whole)
        for _ in range(rng.choice([1, 4, 30]) if data else 0):
            data[rng.randrange(len(data))] = rng.randrange(256)
        file.write_bytes(data)
        try:
            read_all(open_source(path, fps=10))
            outcomes["read"] += 1
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
            outcomes["refused"] += 1
        file.write_bytes(whole)
    assert outcomes["refused"] > 5 and (outcomes["read"] > 2 or kind == "zip")  # a zip has checksums
