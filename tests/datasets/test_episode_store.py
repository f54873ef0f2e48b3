"""Episodes come back as they were appended, with what was said of them, for this package and for zarr."""

import errno
import json
import pickle
import tracemalloc

import numpy as np
import pytest
import zarr

from embodied.core.errors import UsageError, UserError
from embodied.datasets.store.chunk_codecs import encode_jpeg
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec
from embodied.datasets.store.store_header import Layout, layout

IMAGE = "observation.images.front"
KEYS = {IMAGE: KeySpec("uint8", (8, 6, 3)), "action": KeySpec("float32", (2,)), "next.success": KeySpec("bool", ())}


def episode(seed, length=5):
    rng = np.random.default_rng(seed)
    return {
        IMAGE: rng.integers(0, 256, (length, 8, 6, 3), dtype=np.uint8),
        "action": rng.normal(size=(length, 2)).astype(np.float32),
        "next.success": np.arange(length) == length - 1,
    }


def add(store, seed, length=5):
    return store.append(episode(seed, length), task="reach", seed=seed, success=seed % 2 == 0)


@pytest.fixture
def store(tmp_path):
    with EpisodeStore.create(tmp_path / "demos", keys=KEYS, fps=20, robot="arm", provenance={"noise": 0.1}) as opened:
        yield opened


def test_episodes_come_back_as_appended(store):
    assert [add(store, 0), add(store, 1, length=3)] == [0, 1]
    reopened = EpisodeStore.open(store.path)
    assert len(reopened) == 2 and reopened.num_frames == 8
    assert reopened.lengths == [5, 3] and reopened.offsets == [0, 5]
    assert (reopened.fps, reopened.robot, reopened.provenance) == (20.0, "arm", {"noise": 0.1})
    assert reopened.keys == KEYS and reopened.image_keys == [IMAGE]
    last = reopened.episodes[1]
    assert (last.index, last.start, last.length, last.task, last.seed, last.success) == (1, 5, 3, "reach", 1, False)
    for key, array in episode(1, 3).items():
        read = reopened.read_episode(1)[key]
        assert read.dtype == array.dtype and np.array_equal(read, array)
    assert list(reopened.read_episode(0, ["action"])) == ["action"]
    across = np.concatenate([episode(0)["action"], episode(1, 3)["action"]])[3:7]
    assert np.array_equal(reopened.read("action", 3, 7), across)
    assert reopened.read("action", 4, 4).shape == (0, 2)
    assert list(reopened.validate()) == []


def test_any_zarr_reader_sees_the_arrays(store):
    add(store, 0)
    group = zarr.open_group(str(store.path), mode="r")
    assert sorted(group.array_keys()) == sorted(KEYS)
    for key, array in episode(0).items():
        assert group[key].dtype == array.dtype and np.array_equal(group[key][:], array)


def test_chunks_and_shards_are_crossed(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", 4 * 144)
    monkeypatch.setattr("embodied.datasets.store.store_header.SHARD_BYTES", 8 * 144)
    assert layout(KEYS[IMAGE]) == Layout(4, 8)
    with EpisodeStore.create(tmp_path / "s", keys=KEYS, fps=20) as store:
        for seed in range(7):
            add(store, seed, length=5 + seed)
    reopened = EpisodeStore.open(store.path)
    assert sorted(path.name for path in (store.path / IMAGE / "c").iterdir()) == [str(i) for i in range(7)]
    for seed in range(7):
        assert np.array_equal(reopened.read_episode(seed)[IMAGE], episode(seed, 5 + seed)[IMAGE])
    assert np.array_equal(zarr.open_group(str(store.path), mode="r")[IMAGE][:], reopened.read(IMAGE, 0, 56))


def test_a_camera_of_128_pixels_gets_chunks_of_16_frames_and_few_files():
    assert layout(KeySpec("uint8", (128, 128, 3))) == Layout(16, 512)
    assert layout(KeySpec("uint8", (128, 128, 3), "jpeg")) == Layout(16, 1024)
    assert layout(KeySpec("uint8", (1080, 1920, 3))) == Layout(1, 4)
    assert layout(KeySpec("float32", ())) == Layout(1024, 16384)


def test_black_frames_and_zero_actions_are_data(store):
    zeros = {key: np.zeros((4, *spec.shape), spec.dtype) for key, spec in KEYS.items()}
    store.append(zeros, task="", seed=0, success=False)
    assert not EpisodeStore.open(store.path).read(IMAGE, 0, 4).any()


def test_statistics_are_those_of_all_frames(store):
    for seed, length in enumerate((5, 1, 9)):
        add(store, seed, length)
    actions = np.concatenate([episode(seed, length)["action"] for seed, length in enumerate((5, 1, 9))]).astype(float)
    found = EpisodeStore.open(store.path).statistics("action")
    for name in ("mean", "std", "min", "max"):
        assert found[name].dtype == np.float64 and found[name].shape == (2,)
        np.testing.assert_allclose(found[name], getattr(actions, name)(axis=0), rtol=1e-12)
    for name, fraction in (("q01", 0.01), ("q10", 0.1), ("q50", 0.5), ("q90", 0.9), ("q99", 0.99)):
        np.testing.assert_allclose(found[name], np.quantile(actions, fraction, axis=0), rtol=1e-12)
    assert store.statistics("next.success")["mean"] == pytest.approx(3 / 15)
    images = np.concatenate([episode(seed, length)[IMAGE] for seed, length in enumerate((5, 1, 9))]).reshape(-1, 3)
    found = store.statistics(IMAGE)
    np.testing.assert_allclose(found["mean"], images.mean(axis=0))
    assert found["max"].shape == (3,) and 200 < found["q90"].min() <= found["max"].max() <= 255


def test_statistics_need_a_key_and_a_frame(store):
    with pytest.raises(UsageError, match="no finite value of action"):
        store.statistics("action")
    with pytest.raises(UsageError, match="did you mean action"):
        store.statistics("actoin")


def test_depth_and_raw_keep_their_bits(tmp_path):
    keys = {
        "observation.depth.front": KeySpec("float32", (4, 5)),
        "observation.raw.front": KeySpec("uint16", (4, 5)),
        "observation.depth.lost": KeySpec("float32", (4, 5)),
    }
    depth = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    depth[1, 0, :2], depth[2, 3, 4] = (np.nan, np.inf), -0.0
    arrays = {
        "observation.depth.front": depth,
        "observation.raw.front": (np.arange(60).reshape(3, 4, 5) * 1111).astype(np.uint16),
        "observation.depth.lost": np.full((3, 4, 5), np.nan, np.float32),
    }
    with EpisodeStore.create(tmp_path / "s", keys=keys, fps=10) as store:
        store.append(arrays, task="")
    reopened = EpisodeStore.open(store.path)
    for key, array in arrays.items():
        assert reopened.read(key, 0, 3).tobytes() == array.tobytes()
    found = reopened.statistics("observation.depth.front")
    finite = depth[np.isfinite(depth)]
    assert found["mean"].shape == () and found["mean"] == pytest.approx(finite.mean()) and found["max"] == finite.max()
    with pytest.raises(UsageError, match="no finite value"):
        reopened.statistics("observation.depth.lost")


def test_what_is_known_of_an_episode_is_kept(store):
    store.append(episode(0), task="é", origin="demo_17", notes={"gaps": [[3, 0.5]]})
    with store.writer(task="t", seed=1) as writer:
        writer.write(episode(1))
        writer.success, writer.notes = np.bool_(True), {"late": None}
    first, second = EpisodeStore.open(store.path).episodes
    assert (first.task, first.seed, first.success, first.origin, first.notes) == (
        "é",
        None,
        None,
        "demo_17",
        {"gaps": [[3, 0.5]]},
    )
    assert (second.seed, second.success, second.origin, second.notes) == (1, True, "", {"late": None})


def test_an_episode_written_in_blocks_is_the_one_appended_whole(tmp_path, store):
    whole = episode(3, 11)
    add(store, 3, length=11)
    with EpisodeStore.create(tmp_path / "blocks", keys=KEYS, fps=20) as other:
        with other.writer(task="reach", seed=3, success=False) as writer:
            for start, stop in ((0, 1), (1, 6), (6, 11)):
                writer.write({key: array[start:stop] for key, array in whole.items()})
            assert writer.length == 11 and writer.index is None and len(other) == 0
        assert writer.index == 0
        with pytest.raises(UsageError, match="episode 0 is committed"):
            writer.write(episode(1))
    assert EpisodeStore.open(other.path).fingerprint() == store.fingerprint()
    for key in KEYS:
        for name, value in store.statistics(key).items():
            np.testing.assert_allclose(other.statistics(key)[name], value)


def test_the_memory_of_a_writer_does_not_grow_with_the_episode(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", 4 * 64 * 64 * 3)
    monkeypatch.setattr("embodied.datasets.store.store_header.SHARD_BYTES", 16 * 64 * 64 * 3)
    block = {"a": np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)}  # 98 kB
    with EpisodeStore.create(tmp_path / "s", keys={"a": KeySpec("uint8", (64, 64, 3))}, fps=20) as store:
        peaks = []
        for blocks in (8, 128):  # statistics sample 32 frames of either
            tracemalloc.start()
            with store.writer(task="") as writer:
                for _ in range(blocks):
                    writer.write(block)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000 < 128 * 98_304


def test_a_disk_that_fails_while_blocks_come_in_spoils_the_episode_only(store, monkeypatch):
    def fail(self, payload):
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(UserError, match="was not kept whole"), store.writer(task="") as writer:
        writer.write(episode(0))
        with monkeypatch.context() as patch:
            patch.setattr("embodied.datasets.store.episode_writer._StagedArrays.add", fail)
            with pytest.raises(UserError, match="Input/output error"):
                writer.write(episode(1))
    assert len(EpisodeStore.open(store.path)) == 0 and add(store, 0) == 0


def test_a_store_travels_to_other_processes(store):
    add(store, 0)
    copy = pickle.loads(pickle.dumps(EpisodeStore.open(store.path)))
    assert np.array_equal(copy.read("action", 1, 4), episode(0)["action"][1:4])


def test_a_block_that_raises_adds_nothing(store):
    with pytest.raises(ZeroDivisionError), store.writer(task="") as writer:
        writer.write(episode(0))
        raise ZeroDivisionError
    lacking = np.where(np.arange(5)[:, None] == 2, np.nan, np.ones((5, 2), np.float32))
    with pytest.raises(UsageError, match="got nan or infinity at frame 7"), store.writer(task="") as writer:
        writer.write(episode(0))
        writer.write({**episode(1), "action": lacking})
    with pytest.raises(UsageError, match="at least 1 frame"), store.writer(task=""):
        pass
    assert len(EpisodeStore.open(store.path)) == 0
    assert not list((store.path.parent / ".demos.staging").glob("[!.]*"))


@pytest.mark.parametrize("key", list(KEYS))
def test_fingerprint_changes_with_any_value(tmp_path, key):
    def fingerprint(name, arrays, task="reach"):
        with EpisodeStore.create(tmp_path / name, keys=KEYS, fps=20) as store:
            add(store, 0)
            store.append(arrays, task=task, seed=1, success=True)
            return store.fingerprint()

    changed = episode(1)
    changed[key].reshape(-1).view(np.uint8)[-1] ^= 1
    same = fingerprint("a", episode(1))
    assert same == fingerprint("b", episode(1)) == EpisodeStore.open(tmp_path / "a").fingerprint()
    assert len({same, fingerprint("c", changed), fingerprint("d", episode(1), task="push")}) == 3


@pytest.mark.parametrize(
    ("key", "array", "message"),
    [
        ("action", np.zeros((5, 2)), r'arrays\["action"\]: expected float32 \[T, 2\], got float64 \[5, 2\]'),
        ("action", np.zeros((5, 3), np.float32), r"got float32 \[5, 3\]"),
        ("action", np.float32(1), r"got float32 \[\]"),
        ("action", np.full((5, 2), np.nan, np.float32), "nan or infinity at frame 0"),
        ("action", np.zeros((4, 2), np.float32), "one common length of at least 1"),
        ("extra", np.zeros(5), r"not in the store \['extra'\]"),
    ],
)
def test_wrong_arrays_are_refused_and_leave_nothing(store, key, array, message):
    with pytest.raises(UsageError, match=message):
        store.append({**episode(0), key: array}, task="", seed=0, success=True)
    assert len(EpisodeStore.open(store.path)) == 0


def test_wrong_arguments_are_refused(tmp_path, store):
    for spec in (KeySpec("complex64", ()), KeySpec("flaot32", ()), KeySpec("float32", (0,))):
        with pytest.raises(UsageError, match="keys"):
            EpisodeStore.create(tmp_path / "x", keys={"a": spec}, fps=20)
    with pytest.raises(UsageError, match="cannot be the name"):
        EpisodeStore.create(tmp_path / "x", keys={"a/b": KeySpec("uint8", ())}, fps=20)
    for spec, message in (
        (KeySpec("uint8", (4, 4), "jpeg"), r"jpeg needs uint8 \[T, H, W, 3\], got uint8 \[T, 4, 4\]"),
        (KeySpec("float32", (4, 4, 3), "jpeg"), "jpeg needs uint8"),
        (KeySpec("uint8", (4, 4, 3), "jpg"), "did you mean jpeg"),
        (KeySpec("float32", (2,), names=("x",)), "expected 2 names or none, got 1"),
        (KeySpec("uint8", (1 << 20, 1 << 20)), "at most 1 GiB"),
    ):
        with pytest.raises(UsageError, match=message):
            EpisodeStore.create(tmp_path / "x", keys={"a": spec}, fps=20)
    with pytest.raises(UsageError, match="fps must be positive"):
        EpisodeStore.create(tmp_path / "x", keys=KEYS, fps=0)
    with pytest.raises(UsageError, match="provenance"):
        EpisodeStore.create(tmp_path / "x", keys=KEYS, fps=20, provenance={"a": object()})
    assert not list(tmp_path.glob("*x*"))
    for wrong, message in (
        ({"seed": 1.5}, "seed must be an integer or None"),
        ({"success": 1}, "success must be True, False or None"),
        ({"notes": {"a": object()}}, "notes must be JSON-able"),
    ):
        with pytest.raises(UsageError, match=message):
            store.append(episode(0), task="", **wrong)
    add(store, 0)
    with pytest.raises(UsageError, match="did you mean action"):
        store.read("actoin", 0, 1)
    with pytest.raises(UsageError, match="which holds 5"):
        store.read("action", 0, 6)
    with pytest.raises(UsageError, match="episode 1 is not in"):
        store.read_episode(1)


def test_create_never_touches_what_exists(store):
    add(store, 0)
    with pytest.raises(UserError, match="exists already"):
        EpisodeStore.create(store.path, keys=KEYS, fps=20)
    assert len(EpisodeStore.open(store.path)) == 1


def test_several_stores_append_in_turn_and_see_each_other(store):
    second, reader = EpisodeStore.open(store.path, mode="a"), EpisodeStore.open(store.path)
    assert [add(store, 0), add(second, 1), add(store, 2)] == [0, 1, 2]
    assert len(store) == 3 and len(second) == 2 and len(reader) == 0
    assert reader.refresh() == 3 and reader.refresh() == 0
    assert [info.seed for info in reader.episodes] == [0, 1, 2]
    assert np.array_equal(reader.read("action", 5, 10), episode(1)["action"])


def test_only_a_store_open_for_appending_appends(store):
    with pytest.raises(UserError, match="not open for appending"):
        add(EpisodeStore.open(store.path), 0)
    with pytest.raises(UserError, match="not open for appending"), EpisodeStore.open(store.path).writer(task=""):
        pass
    store.close()
    with pytest.raises(UserError, match="not open for appending"):
        add(store, 0)
    with pytest.raises(UsageError, match='mode must be "r" or "a"'):
        EpisodeStore.open(store.path, mode="w")


def test_a_reader_keeps_its_snapshot_while_episodes_are_appended(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", 4 * 144)
    monkeypatch.setattr("embodied.datasets.store.store_header.SHARD_BYTES", 16 * 144)
    with EpisodeStore.create(tmp_path / "s", keys=KEYS, fps=20) as store:
        add(store, 0, 5)
        reader = EpisodeStore.open(store.path)
        before = reader.fingerprint()
        for seed in range(1, 9):
            add(store, seed, 5)
            for key, array in episode(0, 5).items():
                assert np.array_equal(reader.read(key, 0, 5), array)
    assert len(reader) == 1 and reader.fingerprint() == before
    with pytest.raises(UsageError, match="which holds 5"):
        reader.read("action", 0, 6)


def test_an_append_costs_the_episode_and_not_the_store(store, monkeypatch):
    """Files of the index stay few and small, whatever the number of episodes."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # thousands, and nothing here is killed
    written = []
    write = store._storage.write
    store._storage.write = lambda name, data: (written.append((name, len(data))), write(name, data))
    for seed in range(70):
        add(store, seed, length=2)
    files = sorted(path.name for path in (store.path / "_index").glob("*.jsonl"))
    assert len(files) == 4 + 6 and len(EpisodeStore.open(store.path)) == 70
    index_bytes = [size for name, size in written if name.endswith(".jsonl")]
    assert len(index_bytes) == 70 + 4
    assert index_bytes[-1] == pytest.approx(index_bytes[0], rel=0.02)  # one episode, as at the start


def test_the_index_is_lines_of_json(store):
    for seed in range(3):
        add(store, seed)
    lines = [line for path in sorted((store.path / "_index").glob("*.jsonl")) for line in path.read_text().splitlines()]
    episodes = [json.loads(line)["episode"] for line in lines if "episode" in json.loads(line)]
    assert [(record["episode"], record["start"], record["task"]) for record in episodes] == [
        (0, 0, "reach"),
        (1, 5, "reach"),
        (2, 10, "reach"),
    ]


JPEG = {"observation.images.front": KeySpec("uint8", (48, 64, 3), "jpeg")}


def picture(seed, length):
    y, x = np.mgrid[:48, :64]
    return np.stack([np.stack([3 * x + seed, 4 * y, x + y + t], axis=-1) % 256 for t in range(length)]).astype(np.uint8)


def test_jpeg_frames_come_back_within_codec_loss(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.store.store_header.CHUNK_BYTES", 4 * 48 * 64 * 3)
    with EpisodeStore.create(tmp_path / "s", keys=JPEG, fps=20) as store:
        for seed in range(3):
            store.append({IMAGE: picture(seed, 5 + seed)}, task="")
    reopened = EpisodeStore.open(store.path)
    assert reopened.keys == JPEG
    frames = np.concatenate([picture(seed, 5 + seed) for seed in range(3)])
    found = reopened.read(IMAGE, 0, 18)
    assert np.abs(found.astype(int) - frames).mean() < 2
    for start, stop in ((0, 1), (3, 9), (17, 18), (4, 4)):  # each frame by itself: the neighbours do not matter
        assert np.array_equal(reopened.read(IMAGE, start, stop), found[start:stop])
    assert np.array_equal(zarr.open_group(str(store.path), mode="r")[IMAGE][:], found)
    assert list(reopened.validate()) == []
    stored = sum(path.stat().st_size for path in (store.path / IMAGE / "c").rglob("*") if path.is_file())
    assert stored < frames.nbytes / 2


def test_jpeg_files_come_out_without_decoding(tmp_path):
    keys = {**JPEG, "action": KeySpec("float32", (2,))}
    with EpisodeStore.create(tmp_path / "s", keys=keys, fps=20) as store:
        store.append({IMAGE: picture(0, 5), "action": np.zeros((5, 2), np.float32)}, task="")
    assert store.read_encoded(IMAGE, 1, 4) == [encode_jpeg(frame) for frame in picture(0, 5)[1:4]]
    with pytest.raises(UsageError, match="kept as zstd, not as jpeg"):
        store.read_encoded("action", 0, 1)


def test_jpeg_files_go_in_without_compressing_them_once_more(tmp_path):
    with EpisodeStore.create(tmp_path / "s", keys=JPEG, fps=20) as store:
        store.append({IMAGE: picture(0, 5)}, task="")
        frames, files = store.read(IMAGE, 0, 5), store.read_encoded(IMAGE, 0, 5)
        with store.writer(task="") as writer:
            for wrong in (
                files[:4],
                [*files[:4], b""],
                [*files[:4], b"x" * 500],
                [*files[:4], encode_jpeg(frames[0][:8])],
            ):
                with pytest.raises(UsageError, match="encoded"):
                    writer.write({IMAGE: frames}, encoded={IMAGE: wrong})
            writer.write({IMAGE: frames}, encoded={IMAGE: files})
        with store.writer(task="") as writer:  # frames without a file are compressed
            writer.write({IMAGE: frames}, encoded={IMAGE: [None, *files[1:4], None]})
    assert store.read_encoded(IMAGE, 5, 10) == files and store.lengths == [5, 5, 5]
    assert store.read_encoded(IMAGE, 10, 15) == [encode_jpeg(frames[0]), *files[1:4], encode_jpeg(frames[4])]
    assert store.episodes[0].hashes == store.episodes[1].hashes
    assert list(store.validate()) == []
    other = EpisodeStore.create(tmp_path / "t", keys=KEYS, fps=20)
    with pytest.raises(UsageError, match="codec zstd"), other.writer(task="") as writer:
        writer.write(episode(0), encoded={IMAGE: files})


def test_foreign_and_newer_stores_say_what_is_wrong(store, tmp_path):
    with pytest.raises(UserError, match=r"no episode store at .*nothing: there is nothing"):
        EpisodeStore.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not an episode store"):
        EpisodeStore.open(tmp_path, mode="a")
    zarr.open_group(str(tmp_path / "foreign"), mode="w")
    with pytest.raises(UserError, match="not an episode store written by embodied"):
        EpisodeStore.open(tmp_path / "foreign")
    index = store.path / "zarr.json"
    index.write_text(index.read_text().replace('"schema":2', '"schema":3'))
    with pytest.raises(UserError, match=r"schema 3, .* upgrade embodied"):
        EpisodeStore.open(store.path)
    assert not list(tmp_path.glob(".foreign*")) and not list(tmp_path.parent.glob(f".{tmp_path.name}.lock"))
