"""Reading for training: ours beside h5py, a bare memory map, zarr and LeRobot's loader, from one run.

python benchmarks/data.py                      # 96x96 and 224x224, one and two cameras
python benchmarks/data.py real FOLDER [STORE]  # a LeRobot folder: import unless STORE is there, then both loaders
python benchmarks/data.py memory               # peak memory at two sizes of store
LEROBOT_PYTHON=<python with lerobot 0.4.4> adds the side of lerobot; see benchmarks/lerobot_loader.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from itertools import islice
from pathlib import Path
from time import perf_counter

import numpy as np
from data_import import compare_import
from data_sides import (
    BATCH,
    OFFSETS,
    WINDOW,
    episode_store,
    h5py_file,
    lerobot,
    memmap,
    ours,
    ours_reusing,
    show,
    speeds,
    zarr_arrays,
)

from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.materialized import Materialized, materialize
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.streaming import StreamingWindows
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_store import EpisodeStore, KeySpec

EPISODE = 100
SIZES = {96: 3000, 224: 800}  # frames


def smooth_frames(count: int, side: int, seed: int) -> np.ndarray:
    """uint8 [count, side, side, 3] that compress about as camera images do: soft shapes that move, a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side
    times = np.arange(count)[:, None, None, None] / EPISODE
    phase = rng.uniform(0, 6, 3)
    waves = np.sin(7 * x[..., None] + phase + 3 * times) + np.cos(5 * y[..., None] - phase + 2 * times)
    return np.clip(128 + 50 * waves + rng.normal(0, 2, (count, side, side, 3)), 0, 255).astype(np.uint8)


def make_store(path: Path, frames: int, side: int, cameras: list[str]) -> EpisodeStore:
    keys = {camera: KeySpec("uint8", (side, side, 3)) for camera in cameras}
    with EpisodeStore.create(path, keys={**keys, "action": KeySpec("float32", (7,))}, fps=30) as store:
        for episode in range(frames // EPISODE):
            images = {
                camera: smooth_frames(EPISODE, side, 100 * episode + number) for number, camera in enumerate(cameras)
            }
            store.append({**images, "action": np.zeros((EPISODE, 7), np.float32)}, task="move", seed=0, success=True)
    return EpisodeStore.open(path)


def requests(lengths: np.ndarray, seed: int = 0) -> tuple[np.ndarray, list[np.ndarray]]:
    """Random frames, and batches of windows int64 [64, 8] that lie inside an episode."""
    rng = np.random.default_rng(seed)
    starts = np.cumsum(lengths) - lengths
    ends = np.concatenate([start + np.arange(WINDOW - 1, n) for start, n in zip(starts, lengths, strict=True)])
    frames = rng.integers(0, int(np.sum(lengths)), 2000)
    return frames, [rng.choice(ends, BATCH)[:, None] + OFFSETS for _ in range(20)]


def small() -> None:
    for side, frames in SIZES.items():
        for count in (1, 2):
            with tempfile.TemporaryDirectory() as name:
                compare_small(Path(name), side, frames, [f"observation.images.c{number}" for number in range(count)])


def compare_small(folder: Path, side: int, frames: int, cameras: list[str]) -> None:
    store = make_store(folder / "store", frames, side, cameras)
    data = materialize(store, keys=cameras, cache_root=folder / "cache")
    images = {camera: store.read(camera, 0, frames) for camera in cameras}
    for number, array in enumerate(images.values()):
        np.save(folder / f"{number}.npy", array)
    copies = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(len(cameras))]
    sides = {
        "embodied": ours(data, cameras),
        "reusing": ours_reusing(data, cameras),
        "memmap": memmap(copies),
        "h5py": h5py_file(folder / "frames.hdf5", images),
        "store": episode_store(store, cameras),
        "zarr": zarr_arrays(store, cameras),
    }
    wanted = requests(np.asarray(store.lengths))
    found = speeds(sides, *wanted)
    found["lerobot"] = lerobot(exported(store, folder / "lerobot")) if "LEROBOT_PYTHON" in os.environ else None
    show(f"{side}x{side}, {len(cameras)} camera{'s' * (len(cameras) > 1)}, {frames} frames", found)


def exported(store: EpisodeStore, path: Path) -> Path:
    from embodied.datasets.exporters.lerobot import export

    export(store, path, reporter=SilentReporter())
    return path


def real(folder: Path, store_path: Path | None = None) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = store_path or Path(name) / "store"
        if not path.exists():
            compare_import(folder, path)
        store = EpisodeStore.open(path)
        cameras, start = store.image_keys, perf_counter()
        data = materialize(store, keys=cameras, cache_root=Path(name) / "cache")
        print(f"materialise {store.num_frames} frames: {perf_counter() - start:.1f} s, {data.size_bytes / 1e9:.2f} GB")
        wanted = requests(np.asarray(store.lengths))
        copies = [plain_copy(data.rows[camera], Path(name) / f"{camera}.npy") for camera in cameras]
        sides = {
            "embodied": ours(data, cameras),
            "reusing": ours_reusing(data, cameras),
            "memmap": memmap(copies),
            "store": episode_store(store, cameras),
        }
        found = {**speeds(sides, *wanted), "lerobot": lerobot(folder)}
        show(f"{folder.name}: {', '.join(cameras)}", found)


def plain_copy(rows: Rows, path: Path) -> np.ndarray:
    """The same bytes as one memory-mapped `.npy` file; makes sure that both lie in the page cache."""
    copy = np.lib.format.open_memmap(path, mode="w+", dtype=rows.dtype, shape=rows.shape)
    for first in range(0, len(rows), BATCH):
        copy[first : first + BATCH] = rows[first : first + BATCH]
    return np.asarray(copy)


def memory() -> None:
    """Each measured in a process of its own, at two sizes of store."""
    camera = "observation.images.c0"
    for frames in (9000, 18000):
        with tempfile.TemporaryDirectory() as name:
            store = make_store(Path(name) / "store", frames, 96, [camera])
            print(f"{frames} frames, {frames * 96 * 96 * 3 / 1e6:.0f} MB")
            for kind in ("nothing", "materialise", "windows", "stream"):
                command = [sys.executable, __file__, "child", kind, str(store.path), str(Path(name) / "cache")]
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                print(f"  {kind:12} peak {found['peak_mb']:6.0f} MB, of which private {found['private_mb']:6.0f} MB")
    print("windows: the rest is the file itself in the page cache, shared by all processes and taken back on demand")


def child(kind: str, store_path: Path, cache: Path) -> None:
    store, peak = EpisodeStore.open(store_path), [0.0]
    windows = {key: [-1, 0] for key in store.image_keys}

    def data() -> Materialized:
        return materialize(store, keys=store.image_keys, cache_root=cache)

    if kind == "materialise":
        data()
    elif kind == "windows":
        dataset = WindowDataset(data(), windows=windows)
        for first in range(0, len(dataset) - BATCH, BATCH):
            dataset.batch(np.arange(first, first + BATCH))
            peak.append(status_mb("RssAnon"))
    elif kind == "stream":
        stream = StreamingWindows(store, windows=windows, batch_size=BATCH, buffer_frames=1024, seed=0)
        for _ in islice(stream.batches(), 300):  # the same for both: memory grows a little over the first hundred
            peak.append(status_mb("RssAnon"))
    peak.append(status_mb("RssAnon"))
    print(json.dumps({"peak_mb": status_mb("VmHWM"), "private_mb": max(peak)}))


def status_mb(name: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(name))


def main() -> None:
    kind, *rest = sys.argv[1:] or ["small"]
    if kind == "small":
        small()
    elif kind == "real" and rest:
        real(*map(Path, rest[:2]))
    elif kind == "memory":
        memory()
    elif kind == "child":
        child(rest[0], Path(rest[1]), Path(rest[2]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
