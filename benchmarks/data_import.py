"""Import of a LeRobot folder beside decoding its videos alone, and how far the stored colours are from PyAV's.

python benchmarks/data_import.py FOLDER   # makes a store beside nothing else; `benchmarks/data.py real` does this first
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from embodied.core.reporting import SilentReporter
from embodied.datasets.formats import open_source
from embodied.datasets.importing import plan_import, run_import
from embodied.datasets.key_proposal import propose
from embodied.datasets.store.chunk_codecs import decode_jpeg, encode_jpeg
from embodied.datasets.store.episode_store import EpisodeStore

TURNS = 5
EVERY = 20  # frames whose colours are compared
EXACT = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT


def compare_import(folder: Path, path: Path) -> None:
    """Import to `path` beside decoding alone. They take turns, and the fastest of each counts: other load passes."""
    work = {
        "decode to RGB, plainly": partial(decode_plainly, folder),
        "decode to RGB": partial(decode_to_rgb, folder),
        "decode to planes": partial(decode_to_planes, folder),
        "import": partial(import_folder, folder, path),
    }
    best = dict.fromkeys(work, (float("inf"), 0.0))
    for _ in range(TURNS):
        shutil.rmtree(path, ignore_errors=True)
        for name, function in work.items():
            best[name] = min(best[name], seconds(function))
    for name, (wall, used) in best.items():
        print(f"{name:23} {wall:5.2f} s, of processors {used:5.2f} s")
    (whole, used), cores = best.pop("import"), len(os.sched_getaffinity(0))
    print(f"import, {cores} processors of which need {used / cores:.2f} s at least, takes:")
    for name, (wall, _) in best.items():
        print(f"{whole / wall:5.2f} x {name}")
    compare_colours(folder, EpisodeStore.open(path))


def seconds(work: Callable[[], None]) -> tuple[float, float]:
    """What `work` takes: by the clock, and of processors."""
    start, used = perf_counter(), process_time()
    work()
    return perf_counter() - start, process_time() - used


def decode_plainly(folder: Path) -> None:
    """Every frame as an RGB array, in the way in which PyAV's documentation does it."""
    for path in videos(folder):
        with av.open(str(path)) as container:
            for frame in container.decode(video=0):
                frame.to_ndarray(format="rgb24")


def decode_to_rgb(folder: Path) -> None:
    """The same with all threads and one converter, which PyAV makes anew for each frame otherwise."""
    reformatter = VideoReformatter()
    for frame in frames(folder):
        reformatter.reformat(frame, format="rgb24").to_ndarray()


def decode_to_planes(folder: Path) -> None:
    """Every frame as the decoder leaves it, which is what an import compresses."""
    for _ in frames(folder):
        continue


def videos(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.mp4"))


def frames(folder: Path) -> Iterator[Any]:
    for path in videos(folder):
        with av.open(str(path)) as container:
            container.streams.video[0].thread_type = "AUTO"
            yield from container.decode(video=0)


def import_folder(folder: Path, path: Path) -> None:
    name, source = open_source(str(folder))
    plan = plan_import(source, format=name, path=str(folder), mapping=propose(source.keys))
    run_import(source, plan, path, reporter=SilentReporter())
    source.close()


def compare_colours(folder: Path, store: EpisodeStore) -> None:
    """Stored frames, and frames that went over RGB, beside PyAV's RGB: its default is quick, with flags it is exact.

    For folders with one camera, whose videos are the store's frames from first to last.
    """
    (camera,) = store.image_keys
    found: dict[str, list[np.ndarray]] = {}
    for number, frame in enumerate(frames(folder)):
        if number % EVERY == 0:
            quick, exact = (frame.to_ndarray(format="rgb24", interpolation=how) for how in (None, EXACT))
            sides = {"stored": store.read(camera, number, number + 1)[0]}
            sides["over RGB"] = decode_jpeg(encode_jpeg(quick), quick.shape)
            for name, pixels in sides.items():
                for reference, expected in (("quick", quick), ("exact", exact)):
                    found.setdefault(f"{name}, PyAV {reference}", []).append(np.abs(pixels.astype(int) - expected))
    for name, apart in found.items():
        print(f"{name:21} mean difference {np.mean(apart):.2f}, largest {np.max(apart)}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as name:
        compare_import(Path(sys.argv[1]), Path(name) / "store")
