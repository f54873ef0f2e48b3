"""The sides of benchmarks/data.py: ways to read frames, and windows of 8 of them, of a few cameras.

A side is two functions: `frame(i)` reads time step i, `windows(rows)` those of rows int64 [B, T], of every camera.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import zarr

from embodied.datasets.loading.materialized import Materialized
from embodied.datasets.loading.windows import WindowDataset
from embodied.datasets.store.episode_store import EpisodeStore

WINDOW, BATCH = 8, 64
OFFSETS = np.arange(1 - WINDOW, 1)
ROUND_S, ROUNDS = 0.5, 5


@dataclass(frozen=True)
class Side:
    frame: Callable[[int], Any]
    windows: Callable[[np.ndarray], Any]


def rate(function: Callable[[Any], Any], items: Sequence[Any], *, together: int) -> float:
    """Calls per second of the fastest stretch of `together` calls within half a second, or of one stretch.

    A call before the clock starts takes the fresh memory that a side needs: half a gigabyte for windows at 640x480,
    which stalls whoever happens to ask for it first.
    """
    function(items[-1])
    start, best, calls = perf_counter(), float("inf"), 0
    while not calls or perf_counter() - start < ROUND_S:
        part = [items[(calls + number) % len(items)] for number in range(together)]
        before = perf_counter()
        for item in part:
            function(item)
        best, calls = min(best, perf_counter() - before), calls + together
    return together / best


def speeds(
    sides: Mapping[str, Side | None], frames: np.ndarray, batches: Sequence[np.ndarray]
) -> dict[str, tuple[float, float] | None]:
    """Random frames per second and windows per second; a time step counts once, whatever the cameras.

    The sides take turns, and the fastest stretch of each counts: other load on the machine comes and goes.
    """
    best: dict[str, tuple[float, float] | None] = dict.fromkeys(sides)
    for turn in range(1 + ROUNDS):  # the first one warms up
        for name, side in sides.items():
            if side is not None:
                singles = rate(side.frame, frames.tolist(), together=20)
                found = singles, len(batches[0]) * rate(side.windows, batches, together=1)
                before = best[name] if turn > 1 else None
                best[name] = found if before is None else (max(before[0], found[0]), max(before[1], found[1]))
    return best


def ours(data: Materialized, cameras: Sequence[str]) -> Side:
    """The whole of what training gets: windows, padding masks, episode and frame numbers."""
    single = WindowDataset(data, windows={camera: [0] for camera in cameras})
    several = WindowDataset(data, windows={camera: OFFSETS for camera in cameras})
    return Side(lambda index: single[index], lambda rows: several.batch(rows[:, -1]))


def ours_reusing(data: Materialized, cameras: Sequence[str]) -> Side:
    """The same, each batch written over the one before."""
    side, several = ours(data, cameras), WindowDataset(data, windows={camera: OFFSETS for camera in cameras})
    last: dict[str, np.ndarray] = {}
    return Side(side.frame, lambda rows: last.update(several.batch(rows[:, -1], out=last)))


def memmap(arrays: Sequence[np.ndarray]) -> Side:
    """NumPy alone, on a copy of the same bytes."""
    return Side(lambda i: [array[i].copy() for array in arrays], lambda rows: [array[rows] for array in arrays])


def h5py_file(path: Path, images: dict[str, np.ndarray]) -> Side | None:
    """As robomimic keeps and reads frames: one per chunk, uncompressed, fancy indexing; None without h5py."""
    try:
        import h5py
    except ImportError:
        return None
    with h5py.File(path, "w") as file:
        for key, array in images.items():
            file.create_dataset(key, data=array, chunks=(1, *array.shape[1:]))
    file = h5py.File(path, "r")
    sets = [file[key] for key in images]

    def windows(rows: np.ndarray) -> list[np.ndarray]:
        # h5py wants every index once, ascending.
        wanted, places = np.unique(rows, return_inverse=True)
        return [array[wanted][places.reshape(rows.shape)] for array in sets]

    return Side(lambda i: [array[i] for array in sets], windows)


def episode_store(store: EpisodeStore, cameras: Sequence[str]) -> Side:
    """The episode store itself, a read per window."""
    return _by_range(lambda first, last: [store.read(camera, first, last) for camera in cameras])


def zarr_arrays(store: EpisodeStore, cameras: Sequence[str]) -> Side:
    """The store's lossless arrays through zarr alone, a read per window."""
    arrays: list[Any] = [zarr.open_array(f"{store.path}/{camera}", mode="r") for camera in cameras]
    return _by_range(lambda first, last: [array[first:last] for array in arrays])


def _by_range(read: Callable[[int, int], Any]) -> Side:
    return Side(lambda i: read(i, i + 1), lambda rows: [read(int(row[0]), int(row[-1]) + 1) for row in rows])


def lerobot(folder: Path) -> tuple[float, float] | None:
    """Frames and windows per second of lerobot's own loader, in the Python that LEROBOT_PYTHON names; None without."""
    python = os.environ.get("LEROBOT_PYTHON")
    if not python:
        return None
    script = Path(__file__).with_name("lerobot_loader.py")
    result = subprocess.run(
        [python, "-W", "ignore", str(script), str(folder)], stdout=subprocess.PIPE, text=True, check=True
    )
    found = json.loads(result.stdout.strip().splitlines()[-1])
    return found["random_frames_per_s"], found["windows_per_s"]


def show(title: str, sides: dict[str, tuple[float, float] | None]) -> None:
    """A table of both rates per side and how many times as fast the first side is."""
    (first, base), *_ = sides.items()
    assert base is not None
    print(f"\n{title}\n{'':12} {'random frames/s':>16} {'windows of 8/s':>16}   {first} is", flush=True)
    for name, found in sides.items():
        if found is None:
            print(f"{name:12} {'not measured':>16}")
            continue
        ratio = "" if name == first else f"   {base[0] / found[0]:8.1f} x, windows {base[1] / found[1]:8.1f} x as fast"
        print(f"{name:12} {found[0]:16,.0f} {found[1]:16,.1f}{ratio}", flush=True)
    sys.stdout.flush()
