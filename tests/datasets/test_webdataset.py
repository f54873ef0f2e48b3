"""Shards that the webdataset package writes import sample by sample, shard by shard or by their keys."""

import gzip
import io
import json
import logging
import pickle
import tarfile
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
import pytest
import webdataset
from PIL import Image

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.tar_files import TarFile
from embodied.datasets.importers.webdataset import FORMAT, open_source
from embodied.datasets.store.episode_index import KeySpec


def write(path, samples, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = webdataset.TarWriter(str(path), **options)
    for sample in samples:
        writer.write(sample)
    writer.close()
    return path


def picture(value, size=(6, 4)):
    return np.full((size[1], size[0], 3), value, np.uint8)


def encode(array, format="PNG"):
    handle = io.BytesIO()
    Image.fromarray(array).save(handle, format)
    return handle.getvalue()


def step(key, value, **fields):
    """A sample of a picture of one gray value and an action."""
    action = np.array([value, -value], np.float32)
    return {"__key__": key, "png": picture(value), "action.npy": action, **fields}


def read(episode):
    blocks = list(episode.blocks())
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}


def film(values, *, fps=10, suffix="mp4"):
    handle = io.BytesIO()
    with av.open(handle, "w", format=suffix) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for value in values:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(value, (64, 48)), format="rgb24")))
        container.mux(stream.encode())
    return handle.getvalue()


@pytest.fixture
def shards(tmp_path):
    """Two walks in three shards; the first walk goes on in the second shard."""
    folder = tmp_path / "shards"
    samples = [
        step(f"walk{walk}/{index:04d}", 10 * walk + index, txt=f"walk {walk}") for walk in (1, 2) for index in range(4)
    ]
    for number, part in enumerate((samples[:3], samples[3:6], samples[6:])):
        write(folder / f"train-{number:06d}.tar", part)
    return folder


def test_every_sample_is_an_episode_of_one_frame(shards):
    source = open_source(shards)
    assert (len(source), source.fps) == (8, 1.0)
    assert source.keys == {"png": KeySpec("uint8", (4, 6, 3)), "action": KeySpec("float32", (2,))}
    episodes = list(source.episodes())
    assert episodes[3].origin == "train-000001.tar:walk1/0003"
    assert (episodes[3].task, episodes[3].length) == ("walk 1", 1)
    for value, episode in zip([10, 11, 12, 13, 20, 21, 22, 23], episodes, strict=True):
        found = read(episode)
        assert np.array_equal(found["png"], picture(value)[None])
        assert found["action"].tolist() == [[value, -value]]
    source.close()


def test_samples_with_one_key_are_an_episode_across_shards(shards):
    source = open_source(shards, episodes="key", fps=10)
    assert (len(source), source.fps) == (2, 10.0)
    first, second = source.episodes()
    assert [(e.origin, e.task, e.length) for e in (first, second)] == [("walk1", "walk 1", 4), ("walk2", "walk 2", 4)]
    assert read(second)["action"][:, 0].tolist() == [20, 21, 22, 23]
    assert read(first)["action"][:, 0].tolist() == [10, 11, 12, 13]
    assert read(first)["png"][:, 0, 0, 0].tolist() == [10, 11, 12, 13]


def test_a_shard_can_be_an_episode(shards):
    episodes = list(open_source(shards, episodes="shard").episodes())
    assert [(e.origin, e.length) for e in episodes] == [
        (f"train-{n:06d}.tar", size) for n, size in enumerate((3, 3, 2))
    ]
    assert episodes[1].task == "walk 2"  # of most of its samples
    assert read(episodes[1])["action"][:, 0].tolist() == [13, 20, 21]


def test_shards_are_named_by_a_file_a_folder_or_a_pattern(shards):
    assert len(open_source(shards / "train-000002.tar")) == 2
    assert len(open_source(shards / "train-{000000..000001}.tar")) == 6
    assert len(open_source(shards / "{train-000000,train-000002}.tar")) == 5
    with pytest.raises(UserError, match=r"2 of the 4 shards .* are missing, the first is .*train-000003\.tar"):
        open_source(shards / "train-{000001..000004}.tar")
    with pytest.raises(UsageError, match="must count upwards"):
        open_source(shards / "train-{5..3}.tar")
    with pytest.raises(UsageError, match="must be like"):
        open_source(shards / "train-{x}.tar")
    with pytest.raises(UsageError, match="names 10000000000 shards"):
        open_source(shards / "{00000..99999}-{00000..99999}.tar")


def test_compressed_shards_read_the_same_in_one_pass(shards, tmp_path, monkeypatch):
    packed = tmp_path / "packed"
    packed.mkdir()
    for path in shards.iterdir():
        (packed / f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
    rewinds = []
    rewind = gzip._GzipReader._rewind
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda reader: (rewinds.append(1), rewind(reader)))
    plain, source = open_source(shards, episodes="key"), open_source(packed, episodes="key")
    for expected, episode in zip(plain.episodes(), list(source.episodes()), strict=True):
        assert np.array_equal(read(expected)["png"], read(episode)["png"]) and expected.task == episode.task
    source.close()
    assert not rewinds


def test_blocks_are_small(shards, monkeypatch):
    monkeypatch.setattr("embodied.datasets.importers.webdataset_reader.BLOCK_BYTES", 3 * (4 * 6 * 3 + 8))
    first, _ = open_source(shards, episodes="key").episodes()
    assert [len(block["png"]) for block in first.blocks()] == [3, 1]


def test_all_kinds_of_fields(tmp_path):
    depth = np.random.default_rng(0).integers(0, 2**16, (4, 6), dtype=np.uint16)
    facts = {"reward": 0.5, "done": False, "pose": [[1, 2], [3, 4]], "robot": {"gripper": 1}, "uneven": [[1], [2, 3]]}
    sample = {
        "__key__": "a/b.c/000",  # dots in folders belong to the key
        "jpg": encode(picture(100), "JPEG"),
        "wrist.webp": encode(picture(50), "WEBP"),
        "depth.png": encode(depth),
        "mask.png": encode(picture(3)[:, :, 0]),
        "json": {**facts, "instruction": "pick", "operator": "Ada\ud800"},
        "cls": 7,
        "csv": b"1,2",
    }
    source = open_source(write(tmp_path / "a.tar", [sample]))
    assert source.keys["jpg"] == KeySpec("uint8", (4, 6, 3), codec="jpeg")
    (episode,) = source.episodes()
    assert (episode.task, episode.notes) == ("pick", {"operator": "Ada?"})
    found = read(episode)
    assert np.array_equal(found["depth"][0], depth) and found["depth"].dtype == np.uint16
    assert found["mask"].shape == (1, 4, 6) and (found["mask"] == 3).all()
    assert abs(int(found["wrist"][0, 0, 0, 0]) - 50) < 5
    assert found["cls"].tolist() == [7] and found["cls"].dtype == np.int64
    assert found["reward"].tolist() == [0.5] and found["done"].tolist() == [False] and found["done"].dtype == bool
    assert found["pose"].tolist() == [[[1.0, 2.0], [3.0, 4.0]]] and found["robot/gripper"].tolist() == [1.0]
    assert "uneven" not in found and source.provenance["left_out"] == ["csv"]


def test_pictures_of_several_sizes_and_modes_are_brought_to_one(tmp_path):
    samples = [
        {"__key__": "0", "jpg": encode(picture(90), "JPEG")},
        {"__key__": "1", "jpg": encode(picture(60, (9, 9))[:, :, 0], "JPEG")},
    ]
    path = write(tmp_path / "a.tar", samples)
    _, other = open_source(path).episodes()
    with pytest.raises(UserError, match=r"frame 0 of a\.tar:1 is uint8 \[T, 9, 9, 3\], in the first .*size=<pixels>"):
        list(other.blocks())
    source = open_source(path, size=3)
    found = [read(episode)["jpg"] for episode in source.episodes()]
    assert source.keys["jpg"].shape == (3, 3, 3)
    assert abs(found[0].astype(int) - 90).max() < 6 and abs(found[1].astype(int) - 60).max() < 6


def test_a_video_is_an_episode_with_its_arrays(tmp_path):
    actions = np.arange(8, dtype=np.float32).reshape(4, 2)
    samples = [
        {"__key__": "0", "mp4": film([10, 80, 150, 220]), "action.npy": actions, "json": {"task": "pour", "id": 3}},
        {"__key__": "1", "mp4": film([90, 90]), "action.npy": actions[:2], "json": {"task": "stir", "id": 4}},
        {"__key__": "2", "mp4": film([90, 90]), "action.npy": actions, "json": {"task": "stir", "id": 5}},
    ]
    source = open_source(write(tmp_path / "a.tar", samples))
    assert source.fps == 10 and source.keys == {
        "mp4": KeySpec("uint8", (48, 64, 3), codec="jpeg"),
        "action": KeySpec("float32", (2,)),
    }
    first, second, third = source.episodes()
    assert (first.task, second.task, first.length) == ("pour", "stir", None)
    found = read(first)
    assert np.array_equal(found["action"], actions)
    assert abs(found["mp4"][:, 4, 4, 0].astype(int) - [10, 80, 150, 220]).max() < 6
    assert len(read(second)["mp4"]) == 2
    with pytest.raises(
        UserError, match=r"a\.tar:2: action has 4 rows, the video 2 frames: options\.exclude=\[action\]"
    ):
        list(third.blocks())
    resampled = next(open_source(tmp_path, fps=5, size=8, exclude=["action.npy"]).episodes())
    assert read(resampled)["mp4"].shape == (2, 8, 8, 3)
    with pytest.raises(UsageError, match="episodes=sample"):
        open_source(tmp_path, episodes="shard")


def test_two_videos_of_a_sample_go_together(tmp_path, monkeypatch):
    samples = [
        {"__key__": "0", "front.mp4": film([10, 20, 30]), "wrist.mkv": film([110, 120, 130], suffix="matroska")},
        {"__key__": "1", "front.mp4": film([10, 20, 30]), "wrist.mkv": film([110, 120], suffix="matroska")},
    ]
    first, second = open_source(write(tmp_path / "a.tar", samples)).episodes()
    found = read(first)
    assert abs(found["wrist"][:, 0, 0, 0].astype(int) - found["front"][:, 0, 0, 0] - 100).max() < 8
    with pytest.raises(UserError, match="its videos differ in length"):
        list(second.blocks())


def test_a_broken_video_is_named_by_its_sample(tmp_path):
    path = write(tmp_path / "a.tar", [{"__key__": "x", "mp4": film([1, 2])[:300]}])
    with pytest.raises(UserError, match=r"mp4 in sample x of .*a\.tar holds no video"):
        open_source(path)


@pytest.mark.parametrize("ending", ["pyd", "pickle", "state.pkl", "pth"])
def test_pickles_are_refused_and_never_loaded(tmp_path, ending):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("the pickle was loaded",))

    path = write(tmp_path / "a.tar", [step("0", 5)])
    with tarfile.open(path, "a") as archive:
        info = tarfile.TarInfo(f"0.{ending}")
        data = pickle.dumps(Trap())
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match=rf"has a \.{ending} file: Python pickles can run any code"):
        open_source(path)
    (episode,) = open_source(path, exclude=[ending]).episodes()
    assert read(episode).keys() == {"png", "action"}


def test_samples_must_be_alike_or_fields_be_left_out(tmp_path):
    short = step("1", 2)
    del short["action.npy"]
    path = write(tmp_path / "a.tar", [step("0", 1), short, {**step("2", 3), "action.npy": np.zeros(3, np.float32)}])
    first, second, third = open_source(path).episodes()
    assert read(first)["action"].tolist() == [[1, -1]]
    with pytest.raises(UserError, match=r"frame 0 of a\.tar:1 has no action, unlike the first sample"):
        list(second.blocks())
    with pytest.raises(UserError, match=r"action of .* is float32 \[T, 3\], in the first sample float32 \[T, 2\]"):
        list(third.blocks())
    assert [read(episode).keys() for episode in open_source(path, exclude="action").episodes()] == [{"png"}] * 3
    with pytest.raises(UsageError, match=r"unknown field to exclude 'actoin': did you mean action"):
        open_source(path, exclude=["actoin"])


def test_keys_that_do_not_make_episodes_are_said(tmp_path):
    path = write(tmp_path / "a.tar", [step("0", 1)])
    with pytest.raises(UsageError, match=r"episodes=key takes what stands before the last / of keys, but 0 has none"):
        list(open_source(path, episodes="key").episodes())
    path = write(tmp_path / "b.tar", [step("w1/0", 1), step("w2/0", 1), step("w1/1", 1)])
    with pytest.raises(UserError, match="the samples of w1 are not together"):
        list(open_source(path, episodes="key").episodes())
    with pytest.raises(UsageError, match="unknown episodes 'keys': did you mean key"):
        open_source(path, episodes="keys")


def add(archive, name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
def test_archives_of_other_tools_are_read_and_nothing_leaves_them(tmp_path, format):
    outside = tmp_path / "outside"
    outside.mkdir()
    long = "d" * 90 + "/" + "k" * 90
    with tarfile.open(tmp_path / "a.tar", "w", format=format) as archive:
        add(archive, "./folder", type=tarfile.DIRTYPE)
        add(archive, "./0001.cls", b"1")
        add(archive, "../outside/0002.cls", b"2")
        add(archive, "/etc/0003.cls", b"3")
        add(archive, "0004.cls", type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "__meta__/0005.cls", b"5")
        add(archive, f"{long}.cls", b"6")
        if format != tarfile.USTAR_FORMAT:
            add(archive, "ärmel.cls", b"7")
    found = {episode.origin: read(episode)["cls"].tolist() for episode in open_source(tmp_path / "a.tar").episodes()}
    expected = {"a.tar:0001": [1], "a.tar:../outside/0002": [2], "a.tar:/etc/0003": [3], f"a.tar:{long}": [6]}
    assert found == expected | ({} if format == tarfile.USTAR_FORMAT else {"a.tar:ärmel": [7]})
    assert list(outside.iterdir()) == []


def test_a_shard_that_is_cut_or_flipped_is_damage_not_an_end(shards):
    path = shards / "train-000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        second = archive.getmembers()[3].offset
    path.write_bytes(whole[:second] + b"\xff" + whole[second + 1 :])
    with pytest.raises(UserError, match=rf"damaged at byte {second}: no header"):
        list(open_source(path).episodes())
    path.write_bytes(whole[: second + 520])
    with pytest.raises(UserError, match=r"damaged at byte \d+: .* bytes, but the file ends after 8;"):
        list(open_source(path).episodes())
    (shards / "a.tar.gz").write_bytes(gzip.compress(whole)[:-40])
    with pytest.raises(UserError, match=r"a\.tar\.gz cannot be read .*ended before"):
        list(open_source(shards / "a.tar.gz").episodes())


def members(path):
    with closing(TarFile(path)) as archive:
        return list(archive.members())


def test_lengths_that_lead_nowhere_are_refused(tmp_path):
    info = tarfile.TarInfo("0001.cls")
    for size in (-512, 2**62):
        header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
        header[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
        header[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(header))[0]
        (tmp_path / "a.tar").write_bytes(bytes(header) + bytes(512))
        with pytest.raises(UserError, match=r"damaged at byte \d+"):
            members(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "b.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        add(archive, "0001.cls", b"1", pax_headers={"size": "99999"})
    with pytest.raises(UserError, match=r"0001\.cls has 99999 bytes, but the file ends"):
        members(tmp_path / "b.tar")


def test_noise_in_shards_never_crashes_or_hangs(tmp_path):
    sample = {"json": {"a": 1}, "cls": 3, "jpg": encode(picture(1), "JPEG"), "txt": "t"}
    path = write(tmp_path / "a.tar", [step(f"w/{index}", index, **sample) for index in range(3)])
    whole = path.read_bytes()
    generator = np.random.default_rng(0)
    refused = 0
    for attempt in range(150):
        data = bytearray(whole)
        for position in generator.integers(0, len(data), 12):
            data[position] = generator.integers(256)
        path.write_bytes(gzip.compress(data, 1) if attempt % 4 == 0 else data)
        try:
            source = open_source(path, episodes=("sample", "key", "shard")[attempt % 3])
            for episode in source.episodes():
                read(episode)
            source.close()
        except UserError:
            refused += 1
    assert refused > 50


def test_shards_are_recognised_and_empty_ones_said(shards, tmp_path, caplog):
    assert FORMAT.recognizes(shards) and FORMAT.recognizes(shards / "train-{000000..000002}.tar")
    assert not FORMAT.recognizes(tmp_path / "absent") and not FORMAT.recognizes(tmp_path)
    with pytest.raises(UserError, match="there is no file or folder"):
        open_source(tmp_path / "absent.tar")
    with pytest.raises(UserError, match=r"holds no \.gz, \.tar, \.tgz files"):
        (tmp_path / "empty").mkdir()
        open_source(tmp_path / "empty")
    tarfile.open(tmp_path / "empty" / "a.tar", "w").close()
    with pytest.raises(UserError, match="hold no samples"):
        open_source(tmp_path / "empty")
    with pytest.raises(UserError, match="holds nothing that can be imported: csv"), caplog.at_level(logging.WARNING):
        open_source(write(tmp_path / "b.tar", [{"__key__": "0", "csv": b"1"}]))
    assert json.dumps(dict(open_source(shards).provenance))
