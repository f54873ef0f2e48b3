"""A store goes out as a LeRobotDataset that our importer and lerobot itself read back."""

import json
import os
import resource
import subprocess
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from embodied.core.errors import UsageError, UserError
from embodied.core.reporting import SilentReporter
from embodied.datasets.exporters import lerobot_files, lerobot_folder
from embodied.datasets.exporters.lerobot import export
from embodied.datasets.importers.lerobot import open_source
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

ORACLE = Path(__file__).parents[1] / "oracles/lerobot_read.py"
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
DEPTH, FAR, RAW = "observation.depth.front", "observation.depth.far", "observation.raw.front"
LENGTHS = (7, 12, 1, 5)
TASKS = ("pick", "place", "pick", "open the drawer")
SIDE = 64
KEYS = {
    FRONT: KeySpec("uint8", (SIDE, SIDE, 3), codec="jpeg"),
    WRIST: KeySpec("uint8", (SIDE, SIDE, 3)),
    DEPTH: KeySpec("uint16", (8, 9)),
    FAR: KeySpec("float32", (8, 9)),
    "observation.state": KeySpec("float32", (3,), names=("x", "y", "z")),
    "action": KeySpec("float32", (1,)),
    "tactile": KeySpec("float64", (2, 3)),
    "cube": KeySpec("int16", (2, 2, 2)),
    "next.reward": KeySpec("float32", ()),
    "next.done": KeySpec("bool", ()),
}


class Notes(SilentReporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def pictures(camera, episode, length):
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float64)
    waves = [128 + 90 * np.sin(x / 20 + y / 30 + 0.4 * frame + episode + 3 * camera) for frame in range(length)]
    return np.stack([np.stack([x * 3 + 20, y * 3 + 20, wave], axis=-1) for wave in waves]).astype(np.uint8)


def episode(number, length):
    rng = np.random.default_rng(number)
    return {
        FRONT: pictures(0, number, length),
        WRIST: pictures(1, number, length),
        DEPTH: rng.integers(0, 1 << 15, (length, 8, 9), dtype=np.uint16),
        FAR: rng.normal(size=(length, 8, 9)).astype(np.float32),
        "observation.state": rng.normal(size=(length, 3)).astype(np.float32),
        "action": rng.normal(size=(length, 1)).astype(np.float32),
        "tactile": rng.normal(size=(length, 2, 3)),
        "cube": rng.integers(-9, 9, (length, 2, 2, 2), dtype=np.int16),
        "next.reward": rng.normal(size=length).astype(np.float32),
        "next.done": np.arange(length) == length - 1,
    }


def make_store(path, *, keys=None, extra=lambda number, length: {}, fps=10.0, provenance=None, success=True):
    """A store of the episodes above with the chosen keys and what `extra` adds."""
    added = {key: KeySpec(str(a.dtype), a.shape[1:]) for key, a in extra(0, 2).items()}
    chosen = {key: KEYS[key] for key in (KEYS if keys is None else keys)} | added
    with EpisodeStore.create(path, keys=chosen, fps=fps, robot="toy", provenance=provenance) as store:
        for number, (length, task) in enumerate(zip(LENGTHS, TASKS, strict=True)):
            arrays = {key: value for key, value in episode(number, length).items() if key in chosen}
            arrays |= extra(number, length)
            store.append(arrays, task=task, seed=number, success=number != 1 if success else None)
    return EpisodeStore.open(path)


def psnr(found, expected):
    """The worst frame's, in dB."""
    errors = ((found.astype(np.float64) - expected) ** 2).mean(axis=(1, 2, 3))
    return 10 * np.log10(255**2 / max(float(errors.max()), 1e-9))


def read(root):
    """Arrays over all frames, and the episodes, by our importer."""
    source = open_source(root)
    episodes = list(source.episodes())
    blocks = [block for found in episodes for block in found.blocks()]
    source.close()
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}, episodes, source


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


def check_same(arrays, store, *, least_psnr):
    for key, spec in store.keys.items():
        expected = store.read(key, 0, store.num_frames)
        found = arrays[key]
        if len(spec.shape) == 3 and spec.shape[2] == 3:
            assert psnr(found, expected) >= least_psnr, key
        else:
            assert np.array_equal(found.reshape(expected.shape), expected.astype(found.dtype)), key


@pytest.mark.parametrize("use_videos", [True, False])
def test_everything_comes_back(tmp_path, store, use_videos):
    export(store, tmp_path / "out", reporter=SilentReporter(), use_videos=use_videos)
    arrays, episodes, source = read(tmp_path / "out")
    check_same(arrays, store, least_psnr=36 if use_videos else 90)
    assert np.allclose(arrays["timestamp"][7:19], np.arange(12) / 10)
    assert [found.task for found in episodes] == list(TASKS)
    assert [found.length for found in episodes] == list(LENGTHS)
    assert [found.success for found in episodes] == [True, False, True, True]
    assert (source.fps, source.robot) == (10.0, "toy")
    assert source.keys["observation.state"].names == ("x", "y", "z")
    assert source.keys[FRONT].codec == ("jpeg" if use_videos else "zstd")
    assert source.keys[DEPTH] == KEYS[DEPTH] and source.keys[FAR] == KEYS[FAR]


def test_files_go_on_in_new_ones_when_they_are_full(tmp_path, store):
    limits = {"data_files_size_in_mb": 0.012, "video_files_size_in_mb": 0.002, "chunks_size": 2}
    export(store, tmp_path / "out", reporter=SilentReporter(), **limits)
    root = tmp_path / "out"
    assert len(list(root.glob("data/chunk-000/*"))) == 2 and list(root.glob("data/chunk-001/*"))
    for camera in (FRONT, WRIST):
        assert len(list(root.glob(f"videos/{camera}/*/*.mp4"))) >= 2
    arrays, _, _ = read(root)
    check_same(arrays, store, least_psnr=36)


def test_episodes_are_rows_with_statistics(tmp_path, store, monkeypatch):
    monkeypatch.setattr(lerobot_files, "_EPISODES_AT_ONCE", 3)
    export(store, tmp_path / "out", reporter=SilentReporter())
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert [row["tasks"] for row in rows] == [[task] for task in TASKS]
    assert [(row["dataset_from_index"], row["dataset_to_index"]) for row in rows] == [
        (0, 7),
        (7, 19),
        (19, 20),
        (20, 25),
    ]
    assert [row[f"videos/{FRONT}/from_timestamp"] for row in rows] == [0.0, 0.7, 1.9, 2.0]
    states = store.read("observation.state", 7, 19)
    for name, expected in {
        "mean": states.mean(axis=0),
        "std": states.std(axis=0),
        "max": states.max(axis=0),
        "q10": np.quantile(states, 0.1, axis=0),
    }.items():
        assert np.allclose(rows[1][f"stats/observation.state/{name}"], expected, atol=1e-6)
    assert rows[1]["stats/observation.state/count"] == [12]
    whole = json.loads((tmp_path / "out/meta/stats.json").read_text())
    assert np.allclose(whole["action"]["mean"], store.read("action", 0, 25).mean(axis=0), atol=1e-6)
    images = store.read(FRONT, 0, 25) / 255
    assert np.allclose(whole[FRONT]["mean"], images.mean(axis=(0, 1, 2)).reshape(3, 1, 1), atol=0.01)
    assert whole["index"]["max"] == [24] and whole["task_index"]["max"] == [2]
    assert DEPTH in whole and FAR not in whole  # nan has no place in JSON
    groups = pq.ParquetFile(tmp_path / "out/data/chunk-000/file-000.parquet").metadata
    assert [groups.row_group(number).num_rows for number in range(4)] == list(LENGTHS)


def test_an_episode_larger_than_memory_becomes_several_row_groups(tmp_path, store, monkeypatch):
    monkeypatch.setattr(lerobot_folder, "BLOCK_BYTES", 100_000)
    monkeypatch.setattr(lerobot_files, "GROUP_BYTES", 1000)
    export(store, tmp_path / "out", reporter=SilentReporter(), use_videos=False)
    groups = pq.ParquetFile(tmp_path / "out/data/chunk-000/file-000.parquet").metadata
    assert groups.num_row_groups > 4
    arrays, _, _ = read(tmp_path / "out")
    check_same(arrays, store, least_psnr=90)


def test_names_that_lerobot_uses_itself_are_changed_and_reported(tmp_path):
    late = np.float64(0.001)  # seconds: LeRobot's own times are off by more than it allows
    store = make_store(
        tmp_path / "store",
        keys=["action"],
        extra=lambda number, length: {
            "timestamp": np.arange(length) / 10 + late,
            "index": np.arange(length),
            "task_index": np.zeros(length, np.int64),
            "big": np.zeros((length, 100, 100), np.float64),
        },
    )
    reporter = Notes()
    export(store, tmp_path / "out", reporter=reporter)
    arrays, _, _ = read(tmp_path / "out")
    assert np.array_equal(arrays["source.timestamp"], store.read("timestamp", 0, 25))
    assert np.array_equal(arrays["source.index"], store.read("index", 0, 25))
    assert "source.task_index" in arrays and "big" not in arrays and "next.success" in arrays
    text = "\n".join(reporter.notes)
    for expected in (
        "timestamp is called source.timestamp, since LeRobot uses the name itself",
        "index is called source.index",
        "task_index is called source.task_index",
        "left out big: LeRobot has no place for float64 [T, 100, 100]",
        "added next.success, true in the last frame of episodes that succeeded",
    ):
        assert expected in text


def test_regular_times_are_lerobots_own_and_unknown_success_is_not_made_up(tmp_path):
    store = make_store(
        tmp_path / "store",
        keys=["action"],
        extra=lambda number, length: {"timestamp": np.arange(length) / 10},
        success=False,
    )
    reporter = Notes()
    export(store, tmp_path / "out", reporter=reporter)
    arrays, episodes, _ = read(tmp_path / "out")
    assert reporter.notes == [] and arrays.keys() == {"action", "timestamp"}
    assert [found.success for found in episodes] == [None] * 4


TASK_PROVENANCE = {"source": {"tasks": {"0": "pick", "1": "place", "7": "open the drawer"}}}


def several(number, length):
    """The task of an episode, and another one in its first frame where it has more than two."""
    own = {"pick": 0, "place": 1, "open the drawer": 7}[TASKS[number]]
    tasks = np.full(length, own)
    tasks[: int(length > 2)] = 0
    return {"task_index": tasks}


def test_tasks_of_frames_go_back_to_where_they_came_from(tmp_path):
    store = make_store(tmp_path / "store", keys=["action"], extra=several, provenance=TASK_PROVENANCE)
    export(store, tmp_path / "out", reporter=SilentReporter())
    arrays, episodes, source = read(tmp_path / "out")
    assert [found.task for found in episodes] == list(TASKS)
    assert source.provenance["tasks"] == {"0": "pick", "1": "place", "2": "open the drawer"}
    assert arrays["task_index"].tolist() == [0] * 7 + [0] + [1] * 11 + [0] + [0] + [2] * 4


def test_tasks_of_frames_that_contradict_their_episodes_are_not_believed(tmp_path):
    texts = {"source": {"tasks": {"0": "place", "1": "pick", "7": "open the drawer"}}}
    store = make_store(tmp_path / "store", keys=["action"], extra=several, provenance=texts)
    export(store, tmp_path / "out", reporter=SilentReporter())
    arrays, episodes, _ = read(tmp_path / "out")
    assert [found.task for found in episodes] == list(TASKS)
    assert np.array_equal(arrays["source.task_index"], store.read("task_index", 0, 25))


def test_rates_that_are_no_whole_number(tmp_path):
    store = make_store(tmp_path / "store", keys=[FRONT, "action"], fps=29.97)
    export(store, tmp_path / "out", reporter=SilentReporter(), vcodec="libsvtav1", crf=20)
    arrays, _, source = read(tmp_path / "out")
    assert source.fps == 29.97
    check_same(arrays, store, least_psnr=36)


def test_wrong_options_are_told_before_anything_is_written(tmp_path, store):
    for options, message in (
        ({"vcodec": "h265"}, "unknown vcodec 'h265'"),
        ({"crf": -1}, "crf must be in"),
        ({"chunks_size": 0}, "chunks_size must be positive, got 0"),
        ({"video_files_size_in_mb": float("nan")}, "video_files_size_in_mb must be positive, got nan"),
    ):
        with pytest.raises(UsageError, match=message):
            export(store, tmp_path / "out", reporter=SilentReporter(), **options)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match="out exists already: choose another path"):
        export(store, tmp_path / "out", reporter=SilentReporter())
    empty = EpisodeStore.create(tmp_path / "empty", keys={"action": KEYS["action"]}, fps=10)
    empty.close()
    with pytest.raises(UsageError, match="has no episodes to export"):
        export(empty, tmp_path / "other", reporter=SilentReporter())


def test_a_failure_leaves_nothing(tmp_path, store):
    class Broken(SilentReporter):
        def track(self, items, *, total, description, done=0):
            for number, item in enumerate(items):
                if number == 2:
                    raise UserError("stopped")
                yield item

    with pytest.raises(UserError, match="stopped"):
        export(store, tmp_path / "out", reporter=Broken())
    assert [path.name for path in tmp_path.iterdir() if path.name != "store" and "lock" not in path.name] == []


@pytest.mark.parametrize("use_videos", [True, False])
def test_a_disk_that_fails_is_one_message_and_leaves_nothing(tmp_path, store, use_videos):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))  # bytes: no file may grow beyond
    try:
        with pytest.raises(UserError, match="out: writing the LeRobotDataset failed") as error:
            export(store, tmp_path / "out", reporter=SilentReporter(), use_videos=use_videos)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"chunks_size": 2, "video_files_size_in_mb": 0.002}, {"use_videos": False}])
def test_lerobot_itself_reads_an_export(tmp_path, options):
    """Every frame, one by one and in windows; runs where LEROBOT_PYTHON names a Python that has lerobot 0.4."""
    python = os.environ.get("LEROBOT_PYTHON")
    if not python:
        pytest.skip("LEROBOT_PYTHON does not name a Python with lerobot: see tests/oracles/lerobot_fixtures.py")
    store = make_store(tmp_path / "store", extra=several, provenance=TASK_PROVENANCE)
    export(store, tmp_path / "out", reporter=SilentReporter(), **options)
    (tmp_path / "read").mkdir()
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    subprocess.run(
        [python, str(ORACLE), str(tmp_path / "out"), str(tmp_path / "read")], check=True, env=environment, timeout=300
    )
    summary = json.loads((tmp_path / "read/summary.json").read_text())
    arrays = {path.stem: np.load(path) for path in (tmp_path / "read").glob("*.npy")}
    assert (summary["episodes"], summary["frames"], summary["fps"]) == (4, 25, 10)
    names = list(TASK_PROVENANCE["source"]["tasks"].values())
    expected = {"0": names[0], "1": names[1], "7": names[2]}
    assert summary["tasks"] == [expected[str(index)] for index in store.read("task_index", 0, 25)]
    arrays["task_index"] = store.read("task_index", 0, 25)  # lerobot's numbers are others, for the same texts
    check_same(arrays, store, least_psnr=90 if "use_videos" in options else 36)
    assert summary["window"][FRONT] == [3, 3, SIDE, SIDE] and summary["window"]["observation.state"] == [3, 3]
