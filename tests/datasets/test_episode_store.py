"""Episodes come back as they were appended; nothing that happens to process, disk or bytes passes unnoticed."""

import errno
import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import zarr

from embodied.core.errors import UsageError, UserError
from embodied.datasets.disk import FileLock
from embodied.datasets.episode_index import EpisodeIndex, RunningStatistics
from embodied.datasets.episode_store import EpisodeStore, KeySpec
from embodied.datasets.frame_arrays import FrameArray, layout

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
    reopened.verify()


def test_any_zarr_reader_sees_the_arrays(store):
    add(store, 0)
    group = zarr.open_group(str(store.path), mode="r")
    assert sorted(key for key, _ in group.members()) == sorted(KEYS)
    assert np.array_equal(group["action"][:], episode(0)["action"])


def test_chunks_and_shards_are_crossed(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.frame_arrays.CHUNK_BYTES", 4 * 144)
    monkeypatch.setattr("embodied.datasets.frame_arrays.SHARD_BYTES", 8 * 144)
    assert layout(KEYS[IMAGE]) == (4, 8)
    with EpisodeStore.create(tmp_path / "s", keys=KEYS, fps=20) as store:
        for seed in range(7):
            add(store, seed, length=5 + seed)
    reopened = EpisodeStore.open(store.path)
    assert sorted(path.name for path in (store.path / IMAGE / "c").iterdir()) == [str(i) for i in range(7)]
    for seed in range(7):
        assert np.array_equal(reopened.read_episode(seed)[IMAGE], episode(seed, 5 + seed)[IMAGE])


def test_a_camera_of_128_pixels_gets_chunks_of_16_frames_and_few_files():
    assert layout(KeySpec("uint8", (128, 128, 3))) == (16, 512)
    assert layout(KeySpec("uint8", (1080, 1920, 3))) == (1, 4)
    assert layout(KeySpec("float32", ())) == (1024, 65536)


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
    assert store.statistics("next.success")["mean"] == pytest.approx(3 / 15)
    with pytest.raises(UsageError, match="is an image"):
        store.statistics(IMAGE)


def test_statistics_of_a_constant_far_from_zero_have_no_spread():
    merged = RunningStatistics.of(np.full((3, 1), 1e8)).merged(RunningStatistics.of(np.full((4, 1), 1e8)))
    assert merged.summary()["std"] == 0


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
    with pytest.raises(UsageError, match="fps must be positive"):
        EpisodeStore.create(tmp_path / "x", keys=KEYS, fps=0)
    with pytest.raises(UsageError, match="provenance"):
        EpisodeStore.create(tmp_path / "x", keys=KEYS, fps=20, provenance={"a": object()})
    assert not list(tmp_path.glob("*x*"))
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


def test_one_writer_at_a_time(store):
    with pytest.raises(UserError, match=r"process \d+ is writing to"):
        EpisodeStore.open(store.path, mode="a")
    with pytest.raises(UserError, match="not open for appending"):
        add(EpisodeStore.open(store.path), 0)
    store.close()
    with pytest.raises(UserError, match="not open for appending"):
        add(store, 0)
    with EpisodeStore.open(store.path, mode="a") as second:
        assert add(second, 0) == 0


def test_the_lock_of_a_dead_writer_does_not_block(store):
    store.close()
    code = f"""
        import os
        from embodied.datasets.disk import FileLock
        lock = FileLock({str(store.path.parent / ".demos.lock")!r})
        assert lock.acquire(wait=False)
        child = os.fork()
        if child == 0:  # a worker that outlives its parent must not keep the lock
            import time
            print("held", flush=True)
            time.sleep(30)
            os._exit(0)
        time = __import__("time")
        time.sleep(30)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "held\n"
        assert not FileLock(store.path.parent / ".demos.lock").acquire(wait=False)
        process.kill()
        process.wait()
        with EpisodeStore.open(store.path, mode="a") as second:
            assert add(second, 0) == 0
    finally:
        process.kill()
        process.stdout.close()


@pytest.mark.parametrize("stage", ["write", "sync", "index"])
@pytest.mark.parametrize("lost", [3, 40])
def test_an_append_that_dies_loses_only_its_episode(store, monkeypatch, stage, lost):
    add(store, 0)
    before = store.fingerprint()

    def die(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        owner, name = (EpisodeIndex, "write") if stage == "index" else (FrameArray, stage)
        patch.setattr(owner, name, die)
        with pytest.raises(UserError, match=r"no space left on the disk of .* while writing episode 1"):
            add(store, 7, length=lost)
    assert EpisodeStore.open(store.path).fingerprint() == before
    assert add(store, 2, length=6) == 1
    reopened = EpisodeStore.open(store.path)
    assert reopened.lengths == [5, 6]
    reopened.verify()
    assert np.array_equal(zarr.open_group(str(store.path), mode="r")["action"][5:], episode(2, 6)["action"])


WRITER = """
import os, random, signal, sys, time
import numpy as np
from embodied.datasets.episode_store import EpisodeStore

path, target = sys.argv[1], int(sys.argv[2])

def arrays(seed):
    return {"observation.images.a": np.random.default_rng(seed).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)}

def go_on(ready):
    store = EpisodeStore.open(path, mode="a")
    store.verify()
    os.write(ready, b".")
    for number in range(len(store), target):
        store.append(arrays(number), task="", seed=number, success=True)
    os._exit(0)

random.seed(0)
kills = 0
while True:
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        go_on(writing)
    os.close(writing)
    started = os.read(reading, 1)
    os.close(reading)
    if kills < 8:
        time.sleep(random.uniform(0, 0.08))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:
        sys.exit(os.WEXITSTATUS(status) or kills == 0 or not started)
"""


def test_a_writer_killed_again_and_again_leaves_what_one_that_was_not_killed_leaves(tmp_path):
    keys = {"observation.images.a": KeySpec("uint8", (64, 64, 3))}
    EpisodeStore.create(tmp_path / "s", keys=keys, fps=10).close()
    subprocess.run([sys.executable, "-c", WRITER, str(tmp_path / "s"), "40"], check=True, timeout=120)
    with EpisodeStore.open(tmp_path / "s", mode="a") as store:  # clears what the last kill left
        assert [info.seed for info in store.episodes] == list(range(40))
        for number in range(40):
            expected = np.random.default_rng(number).integers(0, 256, (9, 64, 64, 3), dtype=np.uint8)
            assert np.array_equal(store.read_episode(number)["observation.images.a"], expected)
    assert not list(store.path.rglob("*.partial")) and not list(store.path.rglob("*.tmp"))


def shard(store, key):
    return next(path for path in (store.path / key / "c").rglob("*") if path.is_file())


@pytest.mark.parametrize("place", [3, -3, -30])
def test_a_flipped_byte_is_named(store, place):
    add(store, 0)
    path = shard(store, IMAGE)
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError) as raised:
        EpisodeStore.open(store.path).read(IMAGE, 0, 5)
    assert all(part in str(raised.value) for part in (str(path), IMAGE, "episode 0", "damaged"))
    with pytest.raises(UserError, match="episode 0"):
        EpisodeStore.open(store.path).verify()
    with pytest.raises(UserError, match="episode 0"):  # and nothing is built on top of it
        add(store, 1)
    assert len(EpisodeStore.open(store.path)) == 1


@pytest.mark.parametrize("damage", ["empty", "missing", "half"])
def test_a_torn_or_missing_shard_is_named(store, damage):
    add(store, 0)
    path = shard(store, "action")
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[: 0 if damage == "empty" else 20])
    with pytest.raises(UserError, match="key action, episode 0"):
        EpisodeStore.open(store.path).read("action", 0, 1)
    with pytest.raises(UserError, match="key action, episode 0"):
        add(store, 1)


def test_damage_names_only_the_episodes_it_touches(tmp_path, monkeypatch):
    monkeypatch.setattr("embodied.datasets.frame_arrays.CHUNK_BYTES", 8 * 8)
    with EpisodeStore.create(tmp_path / "s", keys={"action": KEYS["action"]}, fps=20) as store:
        for seed in range(4):
            store.append({"action": episode(seed, 8)["action"]}, task="", seed=seed, success=True)
    path = shard(store, "action")
    data = bytearray(path.read_bytes())
    data[3] ^= 1  # the first chunk: frames 0 to 8
    path.write_bytes(data)
    reopened = EpisodeStore.open(store.path)
    with pytest.raises(UserError, match="key action, episode 0;"):
        reopened.read("action", 0, 32)
    assert np.array_equal(reopened.read_episode(3)["action"], episode(3, 8)["action"])


def test_values_changed_with_valid_checksums_are_found_by_verify(store):
    add(store, 0)
    zarr.open_group(str(store.path), mode="r+")["action"][2] = 9
    with pytest.raises(UserError, match="key action, episode 0 is not what was written"):
        EpisodeStore.open(store.path).verify()


def rewrite(path, change):
    record = json.loads(path.read_text())
    change(record["attributes"]["embodied"])
    path.write_text(json.dumps(record))


def test_foreign_damaged_and_newer_stores_say_what_is_wrong(store, tmp_path):
    add(store, 0)
    with pytest.raises(UserError, match="there is no such folder"):
        EpisodeStore.open(tmp_path / "nothing")
    with pytest.raises(UserError, match="is not an episode store"):
        EpisodeStore.open(tmp_path, mode="a")
    zarr.open_group(str(tmp_path / "foreign"), mode="w")
    with pytest.raises(UserError, match="not an episode store written by embodied"):
        EpisodeStore.open(tmp_path / "foreign")
    index = store.path / "zarr.json"
    rewrite(index, lambda content: content["episodes"][0].update(length=4))
    with pytest.raises(UserError, match=r"index .* is damaged"):
        EpisodeStore.open(store.path)
    rewrite(index, lambda content: content.update(schema=2))
    with pytest.raises(UserError, match=r"schema 2, .* upgrade embodied"):
        EpisodeStore.open(store.path)
    index.write_text('{"attr')
    with pytest.raises(UserError, match="damaged"):
        EpisodeStore.open(store.path)


def test_damaged_array_metadata_is_named(store):
    add(store, 0)
    (store.path / "action" / "zarr.json").write_text("{")
    with pytest.raises(UserError, match=r"action/zarr\.json is missing or damaged"):
        EpisodeStore.open(store.path)
