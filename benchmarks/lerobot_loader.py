"""How fast lerobot's own loader reads a LeRobotDataset: single random frames, and windows of 8 frames.

$LEROBOT_PYTHON benchmarks/lerobot_loader.py ROOT [--batches N]

Runs under a Python in which lerobot is installed (see tests/oracles/lerobot_fixtures.py) and prints JSON. One process,
batches of 8 frames and of 2 windows, after one batch that fills caches; windows of every key that lerobot windows.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
from pathlib import Path
from time import perf_counter

import numpy as np
from lerobot.datasets.lerobot_dataset import LeRobotDataset
from lerobot.datasets.utils import DEFAULT_FEATURES

WINDOW = 8
FRAMES_PER_BATCH, WINDOWS_PER_BATCH = 8, 2


def items_per_s(dataset: LeRobotDataset, *, batches: int, batch_size: int) -> float:
    """Items at uniformly drawn places, read one by one as a DataLoader's worker does."""
    places = np.random.default_rng(0).integers(0, len(dataset), (batches + 1, batch_size))
    for index in places[0]:
        dataset[int(index)]
    start = perf_counter()
    for batch in places[1:]:
        for index in batch:
            dataset[int(index)]
    return batches * batch_size / (perf_counter() - start)


def usable_backend(root: Path) -> str:
    """torchcodec, lerobot's first choice, where it finds FFmpeg's libraries; else pyav."""
    try:
        LeRobotDataset("benchmark/frames", root=root, video_backend="torchcodec")[0]
    except (ImportError, RuntimeError):
        return "pyav"
    return "torchcodec"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--batches", type=int, default=10)
    arguments = parser.parse_args()
    root = arguments.root
    backend = usable_backend(root)
    frames = LeRobotDataset("benchmark/frames", root=root, video_backend=backend)
    steps = [step / frames.fps for step in range(WINDOW)]
    times = {key: steps for key in frames.features if key not in DEFAULT_FEATURES}
    windows = LeRobotDataset("benchmark/windows", root=root, video_backend=backend, delta_timestamps=times)
    result = {
        "random_frames_per_s": items_per_s(frames, batches=arguments.batches, batch_size=FRAMES_PER_BATCH),
        "windows_per_s": items_per_s(windows, batches=arguments.batches, batch_size=WINDOWS_PER_BATCH),
        "lerobot": importlib.metadata.version("lerobot"),
        "video_backend": backend,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
