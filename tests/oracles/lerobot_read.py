"""Reads every frame of a LeRobotDataset with lerobot itself and writes what it got, for comparison.

    $LEROBOT_PYTHON tests/oracles/lerobot_read.py ROOT OUT

OUT/<key>.npy holds all frames of a key: images as lerobot gives them, but [F, H, W, C], and uint8 where they are in
[0, 1]; OUT/summary.json the tasks, statistics and lengths. Windows over time are read too, as training reads them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import torch
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_FEATURES

WINDOW = 3


def as_frame(value: torch.Tensor, *, camera: bool) -> np.ndarray:
    array = value.numpy()
    if not camera:
        return array
    array = np.moveaxis(array, 0, -1)
    return (array * 255).round().astype(np.uint8) if array.dtype == np.float32 and array.max() <= 1 else array


def main(root: Path, out: Path) -> None:
    dataset = LeRobotDataset("oracle/export", root=root, video_backend="pyav")
    cameras = set(dataset.meta.camera_keys)
    kept: dict[str, list[np.ndarray]] = {}
    tasks = []
    for index in range(len(dataset)):
        item = dataset[index]
        tasks.append(item.pop("task"))
        for key, value in item.items():
            kept.setdefault(key, []).append(as_frame(value, camera=key in cameras))
    for key, frames in kept.items():
        np.save(out / f"{key}.npy", np.stack(frames))
    steps = [step / dataset.fps for step in range(-WINDOW + 1, 1)]
    times = {key: steps for key in dataset.features if key not in DEFAULT_FEATURES}
    windows = LeRobotDataset("oracle/export", root=root, video_backend="pyav", delta_timestamps=times)
    shapes = {key: list(value.shape) for key, value in windows[len(dataset) - 1].items() if hasattr(value, "shape")}
    summary = {
        "tasks": tasks,
        "episodes": dataset.num_episodes,
        "frames": dataset.num_frames,
        "fps": dataset.fps,
        "stats": {key: {k: v.tolist() for k, v in value.items()} for key, value in dataset.meta.stats.items()},
        "window": shapes,
    }
    (out / "summary.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
