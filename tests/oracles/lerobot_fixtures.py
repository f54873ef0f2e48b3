"""Datasets written by lerobot itself, with the values that lerobot reads from them: tests/datasets/fixtures/lerobot_*.

Runs under a Python of its own, in which lerobot is installed:

    python -m venv oracle && oracle/bin/pip install torch==2.9.1 torchvision==0.24.1 lerobot==0.4.4
    oracle/bin/python tests/oracles/lerobot_fixtures.py v3 tests/datasets/fixtures

The v2.1 folder was written by lerobot 0.3.3, the last to write that version, beside datasets 3.6.0:

    oracle/bin/python tests/oracles/lerobot_fixtures.py v2 tests/datasets/fixtures
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset

LENGTHS = (7, 5, 6)
HEIGHT, WIDTH = 48, 64
CAMERAS = ("observation.images.front", "observation.images.wrist")
TASKS = ("pick up the block", "open the drawer")
FPS = 10


def features(dtype: str) -> dict[str, dict[str, Any]]:
    image = {"dtype": dtype, "shape": (HEIGHT, WIDTH, 3), "names": ["height", "width", "channels"]}
    if dtype == "image":
        return {CAMERAS[0]: image, "action": {"dtype": "float64", "shape": (2,), "names": ["left", "right"]}}
    return {
        **{camera: dict(image) for camera in CAMERAS},
        "observation.state": {"dtype": "float32", "shape": (3,), "names": ["x", "y", "z"]},
        "observation.tactile": {"dtype": "float32", "shape": (2, 3), "names": None},
        "action": {"dtype": "float64", "shape": (2,), "names": ["left", "right"]},
        "gripper": {"dtype": "int64", "shape": (1,), "names": None},
        "next.reward": {"dtype": "float32", "shape": (1,), "names": None},
        "next.success": {"dtype": "bool", "shape": (1,), "names": None},
        "remark": {"dtype": "string", "shape": (1,), "names": None},
    }


def picture(camera: int, episode: int, frame: int) -> np.ndarray:
    """uint8 [H, W, 3]: slopes whose phase tells camera, episode and frame, so that no two frames are alike."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
    phase = 0.9 * frame + 2.0 * episode + 3.0 * camera
    channels = [x / WIDTH * 200 + 20, y / HEIGHT * 200 + 20, 128 + 90 * np.sin(x / 20 + y / 30 + phase)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def frame_of(episode: int, frame: int) -> dict[str, Any]:
    rng = np.random.default_rng([episode, frame])
    return {
        **{name: picture(number, episode, frame) for number, name in enumerate(CAMERAS)},
        "observation.state": rng.normal(size=3).astype(np.float32),
        "observation.tactile": rng.normal(size=(2, 3)).astype(np.float32),
        "action": rng.normal(size=2),
        "gripper": np.array([frame % 3], np.int64),
        "next.reward": np.array([rng.normal()], np.float32),
        "next.success": np.array([episode != 1 and frame == LENGTHS[episode] - 1]),
        "remark": f"episode {episode}",
    }


def task_of(episode: int, frame: int) -> str:
    """Episode 0 has the first task, 1 the second, 2 the first for two frames and then the second."""
    return TASKS[0] if episode == 0 or (episode == 2 and frame < 2) else TASKS[1]


def write(root: Path, dtype: str, *, version: str) -> None:
    shutil.rmtree(root, ignore_errors=True)
    options: dict[str, Any] = {"vcodec": "h264"} if version == "v3" else {}
    dataset = LeRobotDataset.create(
        "fixtures/small", FPS, features(dtype), root=root, robot_type="toy", use_videos=dtype == "video", **options
    )
    if version == "v3":  # tiny files, so that episodes go on in new files and new chunks
        dataset.meta.update_chunk_settings(chunks_size=2, data_files_size_in_mb=0.011, video_files_size_in_mb=0.005)
    for episode, length in enumerate(LENGTHS):
        for frame in range(length):
            values = {key: value for key, value in frame_of(episode, frame).items() if key in features(dtype)}
            if version == "v3":
                dataset.add_frame({**values, "task": task_of(episode, frame)})
            else:
                dataset.add_frame(values, task=task_of(episode, frame))
        dataset.save_episode()
    if version == "v3":
        dataset.finalize()


def golden(root: Path) -> dict[str, np.ndarray]:
    """What lerobot reads: arrays [F, ...] over all frames; of images every fourth pixel, uint8 [F, H/4, W/4, 3]."""
    dataset = LeRobotDataset("fixtures/small", root=root, video_backend="pyav")
    frames = [dataset[index] for index in range(len(dataset))]
    arrays = {}
    for key, value in frames[0].items():
        if isinstance(value, str):
            arrays[key] = np.array([frame[key] for frame in frames])
        elif key in CAMERAS:
            images = np.stack([np.moveaxis((frame[key].numpy() * 255).round(), 0, -1) for frame in frames])
            arrays[key] = images.astype(np.uint8)[:, ::4, ::4]
        else:
            arrays[key] = np.stack([frame[key].numpy() for frame in frames])
    return arrays


def main(version: str, folder: Path) -> None:
    names = {"v3": {"video": "lerobot_v3_video", "image": "lerobot_v3_image"}, "v2": {"video": "lerobot_v2_video"}}
    for dtype, name in names[version].items():
        write(folder / name, dtype, version=version)
        np.savez_compressed(folder / f"{name}.npz", **golden(folder / name))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
