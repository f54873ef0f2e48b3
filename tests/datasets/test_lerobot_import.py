"""What lerobot wrote comes in with the values that lerobot itself reads; what is broken says so and where."""

import json
import re
import shutil
import sys
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.files import parquet_files
from embodied.datasets.importers import lerobot, lerobot_rows
from embodied.datasets.importers.lerobot import open_source
from embodied.datasets.store.episode_index import KeySpec

FIXTURES = Path(__file__).parent / "fixtures"
REAL = Path(__file__).parents[2] / "../shared/data/real_robot_lerobot_v3"
NAMES = ("lerobot_v3_video", "lerobot_v3_image", "lerobot_v2_video")
FRONT, WRIST = "observation.images.front", "observation.images.wrist"
LENGTHS = [7, 5, 6]
TASKS = ["pick up the block", "open the drawer"]


def read(source):
    """All arrays over all frames, and the episodes."""
    episodes = list(source.episodes())
    blocks = [block for episode in episodes for block in episode.blocks()]
    return {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}, episodes


@pytest.fixture
def copy(tmp_path):
    """A function that copies a fixture to a place where it may be broken."""

    def make(name="lerobot_v3_video"):
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return make


def edit(root, **changes):
    path = root / "meta/info.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def edit_rows(path, change):
    """Rewrite a parquet file after `change(columns)`, a dict of lists."""
    table = pq.read_table(path)
    columns = table.to_pydict()
    change(columns)
    pq.write_table(pa.table(columns), path)


def failure(root, **options):
    """The message with which opening or reading a dataset ends."""
    with pytest.raises(UserError) as error:
        source = open_source(root, **options)
        try:
            read(source)
        finally:
            source.close()
    return str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_values_are_those_lerobot_reads(name):
    golden = np.load(FIXTURES / f"{name}.npz")
    source = open_source(FIXTURES / name)
    arrays, episodes = read(source)
    source.close()
    assert (len(source), source.fps, source.robot) == (3, 10.0, "toy")
    assert [episode.length for episode in episodes] == LENGTHS
    assert [episode.origin for episode in episodes] == ["episode_000000", "episode_000001", "episode_000002"]
    assert arrays.keys() == source.keys.keys()
    left_out = {"frame_index", "episode_index", "index", "task", *source.provenance["left_out"]}
    assert arrays.keys() == golden.keys() - left_out
    for key, array in arrays.items():
        assert KeySpec(str(array.dtype), array.shape[1:]) == KeySpec(source.keys[key].dtype, source.keys[key].shape)
        if key in (FRONT, WRIST):
            assert array.shape == (18, 48, 64, 3)
            # another FFmpeg may round colours otherwise, never by more than this
            assert np.abs(array[:, ::4, ::4].astype(int) - golden[key]).max() <= 2
        else:
            # lerobot gives float64 as float32; a file keeps what its info.json says
            assert np.array_equal(array.astype(golden[key].dtype), golden[key]), key


def test_what_the_dataset_says_of_itself_comes_along():
    source = open_source(FIXTURES / "lerobot_v3_video")
    assert source.keys["observation.state"] == KeySpec("float32", (3,), names=("x", "y", "z"))
    assert source.keys["observation.tactile"].shape == (2, 3) and source.keys["gripper"].shape == ()
    assert source.keys[FRONT].codec == "jpeg"
    assert source.provenance["left_out"].keys() == {"remark"} and source.provenance["splits"] == {"train": "0:3"}
    assert source.provenance["tasks"] == {"0": TASKS[0], "1": TASKS[1]}
    json.dumps(source.provenance, allow_nan=False)
    lossless = open_source(FIXTURES / "lerobot_v3_image")
    assert lossless.keys[FRONT] == KeySpec("uint8", (48, 64, 3), codec="zstd")
    source.close()
    lossless.close()


@pytest.mark.parametrize("name", NAMES)
def test_an_episode_with_several_tasks_has_the_commonest_and_an_index_per_frame(name):
    source = open_source(FIXTURES / name)
    arrays, episodes = read(source)
    assert [episode.task for episode in episodes] == [TASKS[0], TASKS[1], TASKS[1]]
    assert episodes[2].notes == {"tasks": [TASKS[1], TASKS[0]]} and episodes[0].notes == {}
    assert arrays["task_index"].tolist() == [0] * 7 + [1] * 5 + [0, 0, 1, 1, 1, 1]
    source.close()


def test_without_such_an_episode_there_is_no_task_index():
    source = open_source(FIXTURES / "lerobot_v3_video", episodes=[0, 1])
    assert "task_index" not in source.keys
    assert [episode.success for episode in source.episodes()] == [True, False]
    source.close()


def test_chosen_episodes_in_any_order_and_read_twice(copy):
    everything = open_source(FIXTURES / "lerobot_v3_video")
    arrays, _ = read(everything)
    some = open_source(FIXTURES / "lerobot_v3_video", episodes=[2, 1])
    last_first = list(some.episodes())[::-1]
    assert [episode.origin for episode in last_first] == ["episode_000002", "episode_000001"]
    for _ in range(2):
        for episode, rows in zip(last_first, (slice(12, 18), slice(7, 12)), strict=True):
            for key in (FRONT, "action"):
                assert np.array_equal(np.concatenate([b[key] for b in episode.blocks()]), arrays[key][rows])
    everything.close()
    some.close()
    with pytest.raises(UsageError, match=r"episodes: 3 is not in .* episodes 0 to 2"):
        open_source(FIXTURES / "lerobot_v3_video", episodes=[3])
    with pytest.raises(UsageError, match=r"episodes must be whole numbers such as .*, got '0'"):
        open_source(FIXTURES / "lerobot_v3_video", episodes="0:3")
    with pytest.raises(UsageError, match="tolerance_s must be a positive"):
        open_source(FIXTURES / "lerobot_v3_video", tolerance_s=0)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_are_small_and_make_up_the_whole(name, monkeypatch):
    whole = open_source(FIXTURES / name)
    expected, _ = read(whole)
    monkeypatch.setattr(lerobot, "BLOCK_BYTES", 40_000)
    source = open_source(FIXTURES / name)
    blocks = [block for episode in source.episodes() for block in episode.blocks()]
    assert max(len(block[FRONT]) for block in blocks) <= 4
    for key, array in expected.items():
        assert np.array_equal(np.concatenate([block[key] for block in blocks]), array)
    whole.close()
    source.close()


def test_episode_metadata_may_be_spread_over_files(copy):
    root = copy()
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(table.slice(0, 1), path)
    (root / "meta/episodes/chunk-001").mkdir()
    pq.write_table(table.slice(1), root / "meta/episodes/chunk-001/file-000.parquet")
    source = open_source(root)
    assert [episode.length for episode in source.episodes()] == LENGTHS
    source.close()


def test_version_2_0_and_element_names_in_an_object(copy):
    root = copy("lerobot_v2_video")
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["observation.state"]["names"] = {"axes": ["a", "b", "c"]}
    edit(root, codebase_version="v2.0", features=features)
    source = open_source(root)
    assert source.keys["observation.state"].names == ("a", "b", "c")
    source.close()


def test_depth_images_keep_their_bits(copy):
    root = copy("lerobot_v3_image")
    depth = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 21
    for path in sorted((root / "data").rglob("*.parquet")):

        def put(columns):
            for frame, row in enumerate(columns[FRONT]):
                handle = BytesIO()
                Image.fromarray(depth + frame).save(handle, "PNG" if frame % 2 else "TIFF")
                row["bytes"] = handle.getvalue()

        edit_rows(path, put)
    source = open_source(root)
    assert source.keys[FRONT] == KeySpec("uint16", (48, 64))
    first = next(next(source.episodes()).blocks())[FRONT]
    assert np.array_equal(first, depth + np.arange(7, dtype=np.uint16)[:, None, None])
    source.close()


def test_depth_videos_come_as_their_codes(copy):
    """As lerobot 0.6 writes them: 12-bit gray, with the parameters of the quantisation in info.json."""
    root = copy()
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[FRONT]["info"] = {"is_depth_map": True, "video.depth_max": 10.0}
    edit(root, features=features, video_path="videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mkv")
    codes = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    for path in sorted((root / "videos").rglob("*.mp4")):
        with av.open(str(path.with_suffix(".mkv")), "w") as container:
            stream = container.add_stream("ffv1" if FRONT in str(path) else "libx264", 10)
            stream.width, stream.height = 64, 48
            stream.pix_fmt = "gray12le" if FRONT in str(path) else "yuv420p"
            for frame in range(12):
                image = av.VideoFrame.from_ndarray(codes + frame, format="gray12le")
                container.mux(stream.encode(image))
            container.mux(stream.encode(None))
    source = open_source(root, tolerance_s=1e-3)  # Matroska counts milliseconds
    arrays, _ = read(source)
    source.close()
    assert source.keys[FRONT] == KeySpec("uint16", (48, 64)) and source.keys[WRIST].dtype == "uint8"
    assert source.provenance["features"][FRONT]["video.depth_max"] == 10.0
    expected = [*range(12), *range(6)]
    assert np.array_equal(arrays[FRONT], codes + np.array(expected, np.uint16)[:, None, None])


def test_numbers_convert_only_where_nothing_but_precision_is_lost(copy):
    root = copy()
    path = root / "data/chunk-000/file-000.parquet"
    edit_rows(path, lambda columns: columns.update({"gripper": [0.5] * 18}))
    assert "file-000.parquet: gripper" in failure(root) and "holds double, but int64 [T] was declared" in failure(root)


# Broken folders: one message that names the file.


def missing(root):
    (root / "videos" / FRONT / "chunk-000/file-001.mp4").unlink()
    return "no video at .*file-001.mp4: check the path"


def missing_data(root):
    (root / "data/chunk-000/file-000.parquet").unlink()
    return "file-000.parquet is missing"


def missing_tasks(root):
    (root / "meta/tasks.parquet").unlink()
    return "tasks.parquet is missing"


def missing_episodes(root):
    shutil.rmtree(root / "meta/episodes")
    return "episodes holds no parquet file"


def cut_video(root):
    path = root / "videos" / FRONT / "chunk-000/file-000.mp4"
    path.write_bytes(path.read_bytes()[:2500])
    return "file-000.mp4"


def cut_data(root):
    path = root / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:6000])
    return "file-000.parquet is damaged or no parquet file"


def no_json(root):
    (root / "meta/info.json").write_text('{"fps": ')
    return "info.json is not JSON"


def wrong_totals(root):
    edit(root, total_frames=19)
    return "info.json promises 3 episodes with 19 frames, but .*episodes lists 3 with 18"


def wrong_episodes(root):
    edit(root, total_episodes=4)
    return "info.json promises 4 episodes"


def unknown_version(root):
    edit(root, codebase_version="v1.6")
    return "codebase_version 'v1.6' is not read here, only v2.0, v2.1, v3.0"


def escaping(root):
    edit(root, data_path="../{chunk_index}/{file_index}.parquet")
    return "info.json: '../{chunk_index}/{file_index}.parquet' gives '../0/0.parquet', which is no path inside"


def absolute(root):
    edit(root, video_path="/etc/{video_key}")
    return "which is no path inside the dataset's folder"


def memory_bomb(root):
    edit(root, data_path="{chunk_index:099999999999d}")
    return "which is no path inside the dataset's folder"


def unknown_field(root):
    edit(root, data_path="{secret}.parquet")
    return "has {secret}, expected chunk_index, file_index"


def no_fps(root):
    edit(root, fps=0)
    return "info.json: fps must be a positive number, got 0"


def no_features(root):
    edit(root, features={})
    return "info.json: features is empty"


def bad_shape(root):
    edit(root, features={"action": {"dtype": "float32", "shape": [-1]}})
    return r"features\['action'\]: shape must be a whole number of at least 0, got -1"


def wrong_shape(root):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["action"]["shape"] = [1 << 40]
    edit(root, features=features)
    return r"file-000.parquet: action of episode 0: a row is not of the declared shape \[1099511627776\]"


def no_timestamp(root):
    features = json.loads((root / "meta/info.json").read_text())["features"]
    del features["timestamp"]
    edit(root, features=features)
    return "info.json: features has videos but no timestamp"


def missing_column(root):
    edit_rows(root / "data/chunk-000/file-000.parquet", lambda columns: columns.pop("action"))
    return "file-000.parquet lacks the column 'action'"


def lost_frame(root):
    def lose(columns):
        for values in columns.values():
            del values[3]

    edit_rows(root / "data/chunk-000/file-000.parquet", lose)
    return "file-000.parquet holds 6 frames of episode 0, the metadata promise 7"


def doubled_frame(root):
    def double(columns):
        columns["frame_index"][3] = 2

    edit_rows(root / "data/chunk-000/file-000.parquet", double)
    return "episode 0 has frame_index 2 where 3 was expected"


def scattered(root):
    def scatter(columns):
        columns["episode_index"][3] = 1

    edit_rows(root / "data/chunk-000/file-000.parquet", scatter)
    return "the rows of episode 0 do not lie together"


def empty_cell(root):
    def clear(columns):
        columns["observation.state"][2] = None

    edit_rows(root / "data/chunk-000/file-000.parquet", clear)
    return "observation.state of episode 0: a row has no value"


def shifted_clip(root):
    def shift(columns):
        columns[f"videos/{FRONT}/from_timestamp"][0] = 0.05

    edit_rows(root / "meta/episodes/chunk-000/file-000.parquet", shift)
    return "no frame within 0.0001 s of 0.0500 s, the nearest is at 0.0000 s"


def clip_beyond_the_end(root):
    def shift(columns):
        columns[f"videos/{FRONT}/from_timestamp"][1] = 0.8

    edit_rows(root / "meta/episodes/chunk-000/file-000.parquet", shift)
    return "no frame at 1.2000 s: the file ends with the frame at 1.1000 s; it is cut short"


def unknown_task(root):
    def rename(columns):
        columns["task_index"][-1] = 9

    edit_rows(root / "data/chunk-000/file-000.parquet", rename)
    return "episode 2 has task 9, but 2 tasks are listed"


BREAKS = [
    *(missing, missing_data, missing_tasks, missing_episodes, cut_video, cut_data, no_json, wrong_totals),
    *(wrong_episodes, unknown_version, escaping, absolute, memory_bomb, unknown_field, no_fps, no_features, bad_shape),
    *(wrong_shape, no_timestamp, missing_column, lost_frame, doubled_frame, scattered, empty_cell, shifted_clip),
    *(clip_beyond_the_end, unknown_task),
]


@pytest.mark.parametrize("damage", BREAKS, ids=[damage.__name__ for damage in BREAKS])
def test_what_is_broken_is_named(copy, damage):
    root = copy()
    pattern = damage(root)
    message = failure(root)
    assert re.search(pattern.replace("{", r"\{").replace("}", r"\}"), message), message


def test_lines_of_v2_metadata_are_named(copy):
    root = copy("lerobot_v2_video")
    path = root / "meta/episodes.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], lines[1][:-5], lines[2]]))
    assert "episodes.jsonl, line 2 is not JSON" in failure(root)
    path.write_text("\n".join([lines[0], lines[2]]))
    assert "episode 1 is missing or listed twice" in failure(root)


@pytest.mark.parametrize("name", NAMES[:2])
def test_random_damage_is_read_or_refused_but_never_crashes(copy, name):
    """Bytes of every kind of file are changed; reading ends with values or one message."""
    root, rng = copy(name), np.random.default_rng(0)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    refused = 0
    for path in files:
        original = path.read_bytes()
        for _ in range(4):
            damaged = bytearray(original)
            for position in rng.integers(0, len(damaged), 4):
                damaged[position] ^= int(rng.integers(1, 256))
            path.write_bytes(damaged[: rng.integers(len(damaged) // 2, len(damaged) + 1)])
            try:
                source = open_source(root)
                try:
                    read(source)
                finally:
                    source.close()
            except UserError as error:
                refused += 1
                assert str(root) in str(error) and "\n" not in str(error)
        path.write_bytes(original)
    assert refused > len(files)


def test_without_pyarrow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    parquet_files.arrow.cache_clear()
    with pytest.raises(MissingExtraError, match=r"pip install 'embodied-learning\[lerobot\]'"):
        open_source(FIXTURES / NAMES[0])


def test_a_foreign_folder_is_no_dataset(tmp_path):
    assert "is no LeRobotDataset: it has no meta/info.json" in failure(tmp_path)
    assert not lerobot.FORMAT.recognizes(tmp_path)
    assert lerobot.FORMAT.recognizes(FIXTURES / NAMES[0])


def test_images_beside_the_dataset_stay_inside_its_folder(tmp_path):
    (tmp_path / "secret").write_bytes(b"x")
    root = tmp_path / "data"
    root.mkdir()
    (root / "frame.png").write_bytes(b"png")
    rows = [{"bytes": None, "path": "frame.png"}]
    batch = pa.RecordBatch.from_pylist([{"image": row} for row in rows])
    assert lerobot_rows.image_bytes(batch, "image", root, "here") == [b"png"]
    for name in ("../secret", str(tmp_path / "secret")):
        batch = pa.RecordBatch.from_pylist([{"image": {"bytes": None, "path": name}}])
        with pytest.raises(UserError, match="is not in the dataset's folder"):
            lerobot_rows.image_bytes(batch, "image", root, "here")


def test_a_folder_from_a_real_robot_comes_in_whole():
    if not REAL.is_dir():
        pytest.skip("the real robot folder of ../shared/data is not here")
    source = open_source(REAL)
    assert source.keys["image"] == KeySpec("uint8", (480, 640, 3), codec="jpeg")
    assert (len(source), source.fps, source.robot) == (4, 30.0, "lingzu_highcam_pi05")
    episode = list(source.episodes())[3]
    assert (episode.length, episode.task) == (414, "lingzu teleoperation")
    frames, spread = 0, []
    for block in episode.blocks():
        assert len(block["image"]) == len(block["state"])
        frames += len(block["image"])
        spread += np.asarray(block["image"])[:, ::8, ::8].std(axis=(1, 2, 3)).tolist()
    source.close()
    assert frames == 414 and min(spread) > 10  # pictures, not blanks
