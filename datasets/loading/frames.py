"""Frames for pre-training, from photographs, videos, shards and episode stores: decoded once, then memory-mapped.

frames = open_frames("photos,demos", image_size=128, cache_root="cache", weights=[1, 3])
sampler = frames.sampler(batch_size=64, seed=0)
batch = frames.read(sampler.batch(step))  # uint8 [64, 128, 128, 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from embodied.core.errors import UsageError
from embodied.core.protocols import Reporter
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.atoms_part import VISUAL_ATOMS, Atoms, atoms_part
from embodied.datasets.loading.frame_dataset import FrameDataset
from embodied.datasets.loading.frame_parts import FrameCaches, FramePart
from embodied.datasets.loading.frame_sources import folder_part, store_parts
from embodied.datasets.loading.shard_part import shard_parts
from embodied.datasets.loading.source_kinds import source_kind
from embodied.datasets.loading.video_part import video_part
from embodied.datasets.store.episode_index import is_store

__all__ = ["Atoms", "FrameDataset", "open_frames"]


def open_frames(
    sources: str | Sequence[str | Path],
    *,
    image_size: int,
    cache_root: str | Path,
    on_error: Literal["raise", "skip"] = "raise",
    weights: Sequence[float] | None = None,
    max_bytes: int | None = None,
    reporter: Reporter | None = None,
    video_fps: float | None = None,
    atoms: Atoms | None = None,
) -> FrameDataset:
    """The frames of all kinds of sources, decoded once into `cache_root`.

    A source is an episode store, of which all image keys are taken; a folder of images or of videos (with those below
    it), or one video; WebDataset shards: a tar file, a folder or a pattern of them; or `visual_atoms`, pictures that
    are drawn when they are read.

    Args:
        sources: paths, as a list or separated by commas.
        image_size: S; frames are resized so that their short side is S, then cropped to the centre.
        cache_root: the folder of caches, shared by processes.
        on_error: whether images and videos that cannot be read raise, or are left out with a warning.
        weights: one per source: how often the sampler draws from it; by default all frames are drawn alike.
        max_bytes: of all caches in `cache_root` together: those not in use make room, the least recently used first.
        reporter: shows progress.
        video_fps: frames taken from each second of a video; None: all.
        atoms: what `visual_atoms` stands for.

    Raises:
        UsageError: an argument makes no sense.
        UserError: a source is missing, empty or damaged, or the disk fails.
    """
    if on_error not in ("raise", "skip") or image_size < 1:
        raise UsageError(f'on_error must be "raise" or "skip", image_size positive; got {on_error!r}, {image_size}')
    if video_fps is not None and not (isinstance(video_fps, int | float) and 0 < video_fps < float("inf")):
        raise UsageError(f"video_fps must be a positive number, got {video_fps!r}")
    paths = [part.strip() for part in sources.split(",")] if isinstance(sources, str) else sources
    if not paths or not all(str(path) for path in paths):
        raise UsageError(f"sources: expected paths separated by commas, got {sources!r}")
    if weights is not None and (len(weights) != len(paths) or not all(w >= 0 for w in weights) or not any(weights)):
        raise UsageError(f"weights: expected {len(paths)}, one per source, none negative, not all zero; got {weights}")
    cache = FrameCaches(Path(cache_root), image_size, max_bytes, reporter or SilentReporter())
    parts: list[FramePart] = []
    for number, path in enumerate(paths):
        folder = Path(path).expanduser()
        if str(path) == VISUAL_ATOMS:
            parts.append(atoms_part(atoms or Atoms(), image_size, source=number))
        elif is_store(folder):
            parts += store_parts(folder, cache, source=number)
        elif (kind := source_kind(folder)) == "shards":
            parts += shard_parts(folder, cache, source=number, on_error=on_error)
        elif kind == "videos":
            parts.append(video_part(folder, cache, source=number, fps=video_fps, on_error=on_error))
        else:
            parts.append(folder_part(folder, cache, source=number, on_error=on_error))
    return FrameDataset(parts, image_size=image_size, weights=weights)
