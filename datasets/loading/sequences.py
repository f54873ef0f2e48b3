"""Windows of sequences for pre-training, from episode stores that need not have the same sensors.

B windows per batch, T steps, V values of a key, F frames.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.core.protocols import PAD_SUFFIX
from embodied.datasets.loading.array_cache import ArrayCache
from embodied.datasets.loading.holdout import split_episodes
from embodied.datasets.loading.materialized import Materialized
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.loading.windows import WindowDataset

SAMPLED_ROWS = 8192  # of each key and source, for statistics of image latents


@dataclass(frozen=True)
class SequenceSource:
    """The windows of one store, around every frame, with whatever keys it has.

    Attributes:
        name: of the store, for people.
        windows: of each key the last T steps.
        fingerprint: of the store.
        held: caches that stay open, so that nobody makes room by deleting them.
    """

    name: str
    windows: WindowDataset
    fingerprint: str
    held: tuple[ArrayCache | Materialized, ...] = ()

    def only(self, episodes: np.ndarray) -> SequenceSource:
        """The windows of some of its episodes, by their numbers in the store."""
        offsets = {key: array.tolist() for key, array in self.windows.windows.items()}
        some = WindowDataset(self.windows.materialized, windows=offsets, episodes=episodes.tolist())
        return replace(self, windows=some)

    @property
    def rows(self) -> Mapping[str, Rows]:
        """Of every frame, by key."""
        return self.windows.materialized.rows


class SequenceDataset:
    """All windows of all sources, one source after the other; what a source lacks is not there, in every window.

    Args:
        sources: at least one; see `sequence_sources.open_sequences`.
        sizes: V of every key that any source has.
        context: T.
        weights: one per source: how often it is drawn from; None: all windows alike.
    """

    def __init__(
        self,
        sources: Sequence[SequenceSource],
        *,
        sizes: Mapping[str, int],
        context: int,
        weights: Sequence[float] | None = None,
    ) -> None:
        if weights is not None and (
            len(weights) != len(sources) or not all(weight >= 0 for weight in weights) or not any(weights)
        ):
            raise UsageError(f"weights: expected {len(sources)}, none negative, not all zero; got {list(weights)}")
        self.sources, self.sizes, self.context = list(sources), dict(sizes), context
        self._weights = None if weights is None else [float(weight) for weight in weights]
        self._stops = np.cumsum([len(source.windows) for source in self.sources])

    def __len__(self) -> int:
        """The number of windows: there is one around every frame."""
        return int(self._stops[-1])

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The windows at indices int64 [B].

        Returns:
            Per key float32 [B, T, V], the present last, zeros where the source has no such key, and `<key>_is_pad`
            bool [B, T], True = not there: the source has none, or the episode had not begun.

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        shape = (len(indices), self.context)
        batch = {key: np.zeros((*shape, size), np.float32) for key, size in self.sizes.items()}
        batch |= {key + PAD_SUFFIX: np.ones(shape, bool) for key in self.sizes}
        for chosen, source, found in self.found(indices):
            for key in source.windows.windows:
                batch[key][chosen], batch[key + PAD_SUFFIX][chosen] = found[key], found[key + PAD_SUFFIX]
        return batch

    def found(self, indices: np.ndarray) -> Iterator[tuple[np.ndarray, SequenceSource, dict[str, np.ndarray]]]:
        """Of every source that windows at indices int64 [B] are of: which, bool [B], the source, and their batch there.

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        owners = np.searchsorted(self._stops, indices, side="right")
        for owner in np.unique(owners):
            source, chosen = self.sources[owner], owners == owner
            first = int(self._stops[owner]) - len(source.windows)
            yield chosen, source, source.windows.batch(indices[chosen] - first)

    def sampler(self, *, batch_size: int, seed: int) -> EpochSampler:
        """Batches over all windows, by the weights of their sources; see `EpochSampler`."""
        weights = None
        if self._weights is not None:
            counts = [len(source.windows) for source in self.sources]
            weights = np.repeat(np.array(self._weights) / counts, counts)
        return EpochSampler(len(self), batch_size=batch_size, seed=seed, weights=weights)

    def hold_out(self, share: float, *, seed: int) -> tuple[SequenceDataset, SequenceDataset]:
        """The windows to train on, and those of whole episodes that are kept from it.

        Args:
            share: of the episodes of each source, in (0, 1); at least one of each source that has several, and one
                stays.
            seed: of the draw.

        Raises:
            UsageError: no source has two episodes.
        """
        parts = split_episodes([source.windows.episodes for source in self.sources], share, seed=seed)
        kept = [source.only(episodes) for source, (episodes, _) in zip(self.sources, parts, strict=True)]
        held = [source.only(some) for source, (_, some) in zip(self.sources, parts, strict=True) if len(some)]
        return self._of(kept, self._weights), self._of(held, None)

    def _of(self, sources: Sequence[SequenceSource], weights: Sequence[float] | None) -> SequenceDataset:
        return SequenceDataset(sources, sizes=self.sizes, context=self.context, weights=weights)

    def statistics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation float32 [V] of every key, over the frames of all sources, held out or not.

        Of keys with more than 64 values over a sample of frames, evenly spread; of others over all.
        """
        return {
            key: moments([source.rows[key] for source in self.sources if key in source.windows.windows], size)
            for key, size in self.sizes.items()
        }

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sources, their keys and order."""
        return hash_json([self.context, self.sizes, [source.fingerprint for source in self.sources]])

    def describe(self) -> list[dict[str, Any]]:
        """Per source: kind, name, frames, keys, weight, fingerprint; for a model card."""
        return [
            {
                "kind": "sequences",
                "name": source.name,
                "frames": len(source.windows),
                "keys": sorted(source.windows.windows),
                "weight": None if self._weights is None else self._weights[number],
                "fingerprint": source.fingerprint,
            }
            for number, source in enumerate(self.sources)
        ]


def moments(parts: Sequence[Rows], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation float32 [V] of rows [F, V]; of more than 64 values over an even sample of rows."""
    count, total, squares = 0.0, np.zeros(size), np.zeros(size)
    for part in parts:
        frames = len(part)
        most = frames if size <= 64 else min(frames, SAMPLED_ROWS)
        rows = part.take(np.linspace(0, frames - 1, most).astype(np.int64)).astype(np.float64)
        share = frames / most  # a row of a sample stands for so many
        count, total = count + frames, total + share * rows.sum(axis=0)
        squares += share * (rows**2).sum(axis=0)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean**2, 0))
    return mean.astype(np.float32), std.astype(np.float32)
