"""What a run needs is decoded once, shared, resumed after a kill, and deleted only when nobody uses it."""

import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from embodied.core.errors import UsageError, UserError
from embodied.datasets.files.image_files import square
from embodied.datasets.loading.cache_space import list_caches
from embodied.datasets.loading.episode_rows import store_ranges
from embodied.datasets.loading.materialized import materialize
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

FRONT, DEPTH, RAW = "observation.images.front", "observation.depth.front", "observation.raw.front"
KEYS = {
    FRONT: KeySpec("uint8", (12, 16, 3)),
    DEPTH: KeySpec("uint16", (12, 16)),
    RAW: KeySpec("uint16", (12, 16)),
    "action": KeySpec("float32", (2,)),
    "next.success": KeySpec("bool", ()),
}


def make_store(path, lengths=(5, 3, 7)):
    rng = np.random.default_rng(0)
    with EpisodeStore.create(path, keys=KEYS, fps=10) as store:
        for number, length in enumerate(lengths):
            arrays = {
                FRONT: rng.integers(0, 256, (length, 12, 16, 3), dtype=np.uint8),
                DEPTH: rng.integers(0, 65536, (length, 12, 16), dtype=np.uint16),
                RAW: rng.integers(0, 65536, (length, 12, 16), dtype=np.uint16),
                "action": rng.normal(size=(length, 2)).astype(np.float32),
                "next.success": rng.random(length) < 0.5,
            }
            store.append(arrays, task=f"task {number % 2}", seed=number, success=True)
    return EpisodeStore.open(path)


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "s")


def test_all_values_of_the_store_lie_in_memory_mapped_files(store, tmp_path):
    data = materialize(store, keys=list(KEYS), cache_root=tmp_path / "c")
    assert data.num_frames == 15 and data.lengths.tolist() == [5, 3, 7] and data.starts.tolist() == [0, 5, 8]
    assert data.tasks == ["task 0", "task 1"] and data.task_indices.tolist() == [0, 1, 0] and data.fps == 10
    for key in KEYS:
        rows = data.rows[key]
        assert np.array_equal(rows[:], store.read(key, 0, 15))
        assert isinstance(rows.maps()[0].base, np.memmap) and not rows.maps()[0].flags.writeable
        assert rows.dtype == np.dtype(KEYS[key].dtype) and rows.shape == (15, *KEYS[key].shape)


def test_only_the_chosen_episodes_are_kept(store, tmp_path):
    data = materialize(store, keys=["action"], episodes=[2, 0], cache_root=tmp_path / "c")
    assert data.episodes.tolist() == [0, 2] and data.starts.tolist() == [0, 5] and data.tasks == ["task 0"]
    wanted = np.concatenate([store.read_episode(number)["action"] for number in (0, 2)])
    assert np.array_equal(data.rows["action"][:], wanted)
    all_of_them = materialize(store, keys=["action"], episodes=[0, 1, 2], cache_root=tmp_path / "c")
    whole = materialize(store, keys=["action"], cache_root=tmp_path / "c")
    assert all_of_them.fingerprint() == whole.fingerprint() != data.fingerprint()


@given(
    lengths=st.lists(st.tuples(st.integers(1, 5), st.booleans()), min_size=1, max_size=8),
    ends=st.tuples(st.floats(0, 1), st.floats(0, 1)),
)
def test_rows_of_chosen_episodes_are_found_in_the_store(lengths, ends):
    starts = np.cumsum([0, *[length for length, _ in lengths[:-1]]])
    chosen = [(start, length) for start, (length, taken) in zip(starts, lengths, strict=True) if taken]
    rows = [start + frame for start, length in chosen for frame in range(length)]
    first, last = sorted(round(end * len(rows)) for end in ends)
    columns = np.array(chosen, np.int64).reshape(-1, 2)
    ranges = list(store_ranges(columns[:, 0], columns[:, 1], first, last))
    assert [frame for low, high in ranges for frame in range(low, high)] == rows[first:last]
    assert all(stop < start for (_, stop), (start, _) in pairwise(ranges))  # as few as possible


def test_images_and_depth_are_resized_and_raw_is_not(store, tmp_path):
    data = materialize(store, keys=[FRONT, DEPTH, RAW], image_size=6, cache_root=tmp_path / "c")
    assert data.rows[FRONT].shape == (15, 6, 6, 3) and data.rows[DEPTH].shape == (15, 6, 6)
    frame = store.read(FRONT, 4, 5)[0]
    assert np.array_equal(data.rows[FRONT][4], square(Image.fromarray(frame), 6))
    # 12x16 halves to 6x8, of which the middle 6 columns are taken: of every 2x2 values one that was there.
    depth = store.read(DEPTH, 4, 5)[0]
    assert np.array_equal(data.rows[DEPTH][4], depth[1::2, 3:15:2])
    assert np.array_equal(data.rows[RAW][:], store.read(RAW, 0, 15))
    wide = materialize(store, keys=[FRONT, DEPTH], image_size=(6, 12), cache_root=tmp_path / "c")
    assert wide.rows[FRONT].shape == (15, 6, 12, 3) and wide.rows[DEPTH].shape == (15, 6, 12)
    same = materialize(store, keys=[FRONT], image_size=(12, 16), cache_root=tmp_path / "c")
    assert same.rows[FRONT].folder == materialize(store, keys=[FRONT], cache_root=tmp_path / "c").rows[FRONT].folder


def test_a_second_run_decodes_only_what_is_new(store, tmp_path, monkeypatch):
    read, calls = EpisodeStore.read, []
    monkeypatch.setattr(EpisodeStore, "read", lambda self, key, *rest: calls.append(key) or read(self, key, *rest))
    first = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c")
    assert calls == [FRONT, "action"]
    second = materialize(store, keys=["action", "next.success", FRONT], cache_root=tmp_path / "c")
    assert calls[2:] == ["next.success"]
    assert second.content_hash(FRONT) == first.content_hash(FRONT)
    with EpisodeStore.open(store.path, mode="a") as grown:
        grown.append(store.read_episode(0), task="", seed=9, success=True)
    assert materialize(EpisodeStore.open(store.path), keys=["action"], cache_root=tmp_path / "c").num_frames == 20


def test_blocks_and_threads_do_not_show(store, tmp_path, monkeypatch):
    whole = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "a", threads=1)
    monkeypatch.setattr("embodied.datasets.loading.materialized._BLOCK_BYTES", 4 * 576)
    parts = materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "b", threads=3)
    for key in whole.rows:
        assert whole.rows[key].paths[0].read_bytes() == parts.rows[key].paths[0].read_bytes()


def test_wrong_arguments_are_refused(store, tmp_path):
    cases = {
        "did you mean action": {"keys": ["actions"]},
        "keys: expected at least one": {"keys": []},
        "episodes: expected different numbers from 0 to 2": {"keys": ["action"], "episodes": [0, 0]},
        "from 0 to 2, got 1 to 3": {"keys": ["action"], "episodes": [3, 1]},
        "episodes: expected at least one": {"keys": ["action"], "episodes": []},
        "episodes: expected whole numbers": {"keys": ["action"], "episodes": [0.5]},
        "image_size must be": {"keys": [FRONT], "image_size": 0},
        "image_size must be a": {"keys": [FRONT], "image_size": (4, 4, 4)},
    }
    for message, arguments in cases.items():
        with pytest.raises(UsageError, match=message):
            materialize(store, **arguments, cache_root=tmp_path / "c")
    keys = {"observation.images.x": KeySpec("float32", (4, 4, 3))}
    odd = EpisodeStore.create(tmp_path / "odd", keys=keys, fps=1)
    odd.append({"observation.images.x": np.zeros((1, 4, 4, 3), np.float32)}, task="", seed=0, success=True)
    with pytest.raises(UsageError, match=r"only uint8 .* can be resized, got float32"):
        materialize(odd, keys=list(keys), image_size=2, cache_root=tmp_path / "c")


def test_more_than_the_cap_or_the_disk_is_refused_before_anything_is_decoded(store, tmp_path, monkeypatch):
    monkeypatch.setattr(EpisodeStore, "read", lambda *arguments: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"to materialise \(observation.images.front 0.00, action 0.00\), and the cap"):
        materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c", max_bytes=15 * 576)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 15 * 576}))
    with pytest.raises(UserError, match="no space left on the disk"):
        materialize(store, keys=[FRONT, "action"], cache_root=tmp_path / "c")


def test_caches_make_room_for_new_ones_but_never_one_in_use(store, tmp_path):
    root, size = tmp_path / "c", 15 * 576 + 2000  # of the images, with file headers
    first = materialize(store, keys=[FRONT], cache_root=root)
    second = materialize(store, keys=[DEPTH], cache_root=root)
    used = sum(info.size_bytes for info in list_caches(root))
    with pytest.raises(UserError, match="caches in use take"):
        materialize(store, keys=[RAW], cache_root=root, max_bytes=used)
    worker = pickle.loads(pickle.dumps(first))  # reads on, although it holds no lock
    worker.rows[FRONT].maps()
    second.close()
    third = materialize(store, keys=[RAW], cache_root=root, max_bytes=used)
    assert not second.rows[DEPTH].folder.exists() and first.rows[FRONT].folder.exists()
    assert np.array_equal(first.rows[FRONT][:], store.read(FRONT, 0, 15))
    first.close()
    third.close()
    materialize(store, keys=[RAW], cache_root=root).close()  # used: now younger than the images
    fourth = materialize(store, keys=["action"], cache_root=root, max_bytes=used - size // 2)
    assert not first.rows[FRONT].folder.exists() and third.rows[RAW].folder.exists()
    assert np.array_equal(worker.rows[FRONT][:], store.read(FRONT, 0, 15))
    assert fourth.num_frames == 15


def test_what_a_killed_run_left_makes_room_too(store, tmp_path, monkeypatch):
    monkeypatch.setattr(EpisodeStore, "read", lambda *arguments: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        materialize(store, keys=[FRONT], cache_root=tmp_path / "c")
    monkeypatch.undo()
    left = [info for info in list_caches(tmp_path / "c") if not info.complete]
    data = materialize(store, keys=[RAW], cache_root=tmp_path / "c", max_bytes=15 * 384 + 3000)
    assert left and not any(info.path.exists() for info in left) and data.rows[RAW].shape == (15, 12, 16)


def test_room_counts_what_was_killed_before_its_first_record(store, tmp_path):
    data = materialize(store, keys=[FRONT], cache_root=tmp_path / "c")
    data.close()
    (data.rows[FRONT].folder / "progress.json").unlink()
    assert sum(info.size_bytes for info in list_caches(tmp_path / "c")) > 15 * 576
    materialize(store, keys=[RAW], cache_root=tmp_path / "c", max_bytes=15 * 384 + 3000)
    assert not data.rows[FRONT].folder.exists()


def test_features_join_as_one_more_key(store, tmp_path):
    data = materialize(store, keys=["action"], cache_root=tmp_path / "c")
    more = data.with_rows("features", materialize(store, keys=[DEPTH], cache_root=tmp_path / "c").rows[DEPTH])
    assert list(more.rows) == ["action", "features"] and list(data.rows) == ["action"]
    part = materialize(store, keys=[DEPTH], episodes=[1], cache_root=tmp_path / "c")
    with pytest.raises(UsageError, match="features: expected 15 rows, one per frame, got 3"):
        data.with_rows("features", part.rows[DEPTH])


BUILDER = """
import os, random, signal, sys, time
from embodied.datasets.loading import materialized
from embodied.datasets.store.episode_store import EpisodeStore

materialized._BLOCK_BYTES = 2 * 576
read = EpisodeStore.read
EpisodeStore.read = lambda *arguments: time.sleep(0.01) or read(*arguments)

def build():
    store = EpisodeStore.open(sys.argv[1])
    materialized.materialize(store, keys=store.keys, image_size=6, cache_root=sys.argv[2])
    os._exit(0)

random.seed(0)
for trial in range(int(sys.argv[3]) + 1):
    child = os.fork()
    if child == 0:
        build()
    if trial < int(sys.argv[3]):
        time.sleep(random.uniform(0.05, 0.2))
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    print("killed" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))
"""


def test_a_run_killed_again_and_again_leaves_the_same_bytes(tmp_path):
    make_store(tmp_path / "s", (20, 13, 27))

    def build(root, kills):
        command = [sys.executable, "-c", BUILDER, str(tmp_path / "s"), str(root), str(kills)]
        return subprocess.run(command, check=True, timeout=120, stdout=subprocess.PIPE, text=True).stdout.split()

    assert build(tmp_path / "once", 0) == ["0"]
    outcomes = build(tmp_path / "killed", 5)
    assert outcomes.count("killed") >= 3 and outcomes[-1] == "0"
    once, killed = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.npy")}
        for name in ("once", "killed")
    )
    assert len(once) == 5 + 4 and once == killed


def test_processes_that_want_the_same_build_it_once(tmp_path):
    make_store(tmp_path / "s", (20, 13, 27))
    script = BUILDER.split("random.seed")[0] + "build()"
    command = [sys.executable, "-c", script, str(tmp_path / "s"), str(tmp_path / "c")]
    processes = [subprocess.Popen(command) for _ in range(2)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    assert all(info.complete for info in list_caches(tmp_path / "c")) and len(list_caches(tmp_path / "c")) == 6
