"""Broken LeRobot folders end in one message that names the file."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from lerobot_folders import FIXTURES, FRONT, NAMES, edit, edit_rows, failure, read

from embodied.core.errors import UserError
from embodied.datasets.importers.lerobot import open_source


@pytest.fixture
def copy(tmp_path):
    """A function that copies a fixture to a place where it may be broken."""

    def make(name="lerobot_v3_video"):
        return Path(shutil.copytree(FIXTURES / name, tmp_path / name))

    return make


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
