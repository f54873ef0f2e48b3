"""What lerobot wrote comes in with the values that lerobot itself reads."""

import json
import shutil
import sys
from io import BytesIO
from pathlib import Path

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from lerobot_folders import FIXTURES, FRONT, LENGTHS, NAMES, TASKS, WRIST, edit, edit_rows, failure, read
from PIL import Image

from embodied.core.errors import MissingExtraError, UsageError, UserError
from embodied.datasets.files import parquet_files
from embodied.datasets.importers import lerobot, lerobot_rows
from embodied.datasets.importers.lerobot import open_source
from embodied.datasets.store.episode_index import KeySpec

REAL = Path(__file__).parents[2] / "../shared/data/real_robot_lerobot_v3"


@pytest.fixture
def copy(tmp_path):
    """A function that copies a fixture to a place where it may be broken."""

    def make(name="lerobot_v3_video"):
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return make


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
