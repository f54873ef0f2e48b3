"""Frames for pre-training, from folders of photographs and episode stores: decoded once, then memory-mapped.

frames = open_frames("photos,demos", image_size=128, cache_root="cache", weights=[1, 3])
sampler = frames.sampler(batch_size=64, seed=0)
batch = frames.read(sampler.batch(step))  # uint8 [64, 128, 128, 3]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch.utils.data import Dataset

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.core.protocols import Reporter
from embodied.core.reporting import SilentReporter
from embodied.datasets.loading.frame_sources import FrameCaches, FramePart, folder_part, store_parts
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.store.episode_index import is_store


class FrameDataset(Dataset[np.ndarray]):
    """All frames of all sources, one after the other; made by `open_frames`, cheap to send to worker processes."""

    def __init__(self, parts: Sequence[FramePart], *, image_size: int, weights: Sequence[float] | None) -> None:
        self.image_size = image_size
        self._parts = list(parts)
        self._stops = np.cumsum([len(part) for part in self._parts])
        self._weights = weights

    def __len__(self) -> int:
        return int(self._stops[-1])

    def __getitem__(self, index: int | np.integer | np.ndarray) -> np.ndarray:
        """One frame, uint8 [S, S, 3], or those of an array of indices."""
        return self.read(index) if isinstance(index, np.ndarray) and index.ndim else self.read(np.asarray([index]))[0]

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Frames uint8 [B, S, S, 3] at the indices int64 [B], in memory of their own."""
        indices = np.asarray(indices)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        batch = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        owners = np.searchsorted(self._stops, indices, side="right")
        for owner in np.unique(owners):
            part, chosen = self._parts[owner], owners == owner
            first = self._stops[owner] - len(part)
            batch[chosen] = part.take(indices[chosen] - first)
        return batch

    def sampler(self, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> EpochSampler:
        """Batches over all frames, by the weights given to `open_frames`; see `EpochSampler`."""
        weights = self.item_weights()
        return EpochSampler(
            len(self), batch_size=batch_size, seed=seed, weights=weights, rank=rank, world_size=world_size
        )

    def item_weights(self) -> np.ndarray | None:
        """float64 [N]: the weight of each source spread over its frames; None when no weights were given."""
        if self._weights is None:
            return None
        counts: dict[int, int] = {}
        for part in self._parts:
            counts[part.source] = counts.get(part.source, 0) + len(part)
        each = [self._weights[part.source] / counts[part.source] for part in self._parts]
        return np.repeat(each, [len(part) for part in self._parts])

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the decoded frames and their order."""
        return hash_json([self.image_size, [part.fingerprint for part in self._parts]])

    def describe(self) -> list[dict[str, Any]]:
        """Per source and image key: kind, name, frames, skipped files, weight, fingerprint; for a model card."""
        return [
            {
                "kind": part.kind,
                "name": part.name,
                "frames": len(part),
                "skipped": part.skipped,
                "weight": None if self._weights is None else float(self._weights[part.source]),
                "fingerprint": part.fingerprint,
            }
            for part in self._parts
        ]


def open_frames(
    sources: str | Sequence[str | Path],
    *,
    image_size: int,
    cache_root: str | Path,
    on_error: Literal["raise", "skip"] = "raise",
    weights: Sequence[float] | None = None,
    max_bytes: int | None = None,
    reporter: Reporter | None = None,
) -> FrameDataset:
    """The frames of folders of images and of episode stores, each decoded once into `cache_root`.

    Args:
        sources: paths, as a list or separated by commas; a folder of images (with those below it) or a store, of
            which all image keys are taken.
        image_size: S; frames are resized so that their short side is S, then cropped to the centre.
        cache_root: the folder of caches, shared by processes.
        on_error: whether image files that cannot be read raise, or are left out with a warning.
        weights: one per source: how often the sampler draws from it; by default all frames are drawn alike.
        max_bytes: of all caches in `cache_root` together: those not in use make room, the least recently used first.
        reporter: shows progress.

    Raises:
        UsageError: an argument makes no sense.
        UserError: a source is missing, empty or damaged, or the disk fails.
    """
    if on_error not in ("raise", "skip") or image_size < 1:
        raise UsageError(f'on_error must be "raise" or "skip", image_size positive; got {on_error!r}, {image_size}')
    paths = [part.strip() for part in sources.split(",")] if isinstance(sources, str) else sources
    if not paths or not all(str(path) for path in paths):
        raise UsageError(f"sources: expected paths separated by commas, got {sources!r}")
    if weights is not None and (len(weights) != len(paths) or not all(w >= 0 for w in weights) or not any(weights)):
        raise UsageError(f"weights: expected {len(paths)}, one per source, none negative, not all zero; got {weights}")
    cache = FrameCaches(Path(cache_root), image_size, max_bytes, reporter or SilentReporter())
    parts: list[FramePart] = []
    for number, path in enumerate(paths):
        folder = Path(path).expanduser()
        if is_store(folder):
            parts += store_parts(folder, cache, source=number)
        else:
            parts.append(folder_part(folder, cache, source=number, on_error=on_error))
    return FrameDataset(parts, image_size=image_size, weights=weights)
