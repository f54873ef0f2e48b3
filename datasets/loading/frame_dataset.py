"""All frames of several sources as one array, with their classes, and which of them belong together."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.core.pairing import FrameRelations
from embodied.datasets.loading.frame_parts import FramePart
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.store.episode_store import EpisodeStore


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
        """Frames uint8 [..., S, S, 3] at the indices int64 [...], in memory of their own."""
        shape, indices = np.shape(indices), np.ravel(indices)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        batch = np.empty((len(indices), self.image_size, self.image_size, 3), np.uint8)
        owners = np.searchsorted(self._stops, indices, side="right")
        for owner in np.unique(owners):
            part, chosen = self._parts[owner], owners == owner
            batch[chosen] = part.take(indices[chosen] - self._start(owner))
        return batch.reshape(*shape, *batch.shape[1:])

    def sampler(self, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1) -> EpochSampler:
        """Batches over all frames, by the weights given to `open_frames`; see `EpochSampler`."""
        weights = self.item_weights()
        return EpochSampler(
            len(self), batch_size=batch_size, seed=seed, weights=weights, rank=rank, world_size=world_size
        )

    def item_weights(self, chosen: np.ndarray | None = None) -> np.ndarray | None:
        """float64 [N]: the weight of each source spread over its frames; None when no weights were given.

        Args:
            chosen: bool [N]: spread it over these, and give the others 0; or numbers [N] that are not negative: spread
                it in proportion to these; by default over all alike.
        """
        if self._weights is None:
            return None
        sources = self._sources()
        share = np.ones(len(self)) if chosen is None else chosen.astype(np.float64)
        sums = np.bincount(sources, share, minlength=len(self._weights))
        each = np.asarray(self._weights, np.float64) / np.where(sums > 0, sums, 1)
        return np.asarray(each[sources] * share)

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """The classes of all sources that have any, sorted; a label is a position in here."""
        return tuple(sorted({name for part in self._parts if part.labels is not None for name in part.labels.names}))

    @cached_property
    def _class_numbers(self) -> list[np.ndarray | None]:
        """Per part the position in `class_names` of each of its names."""
        number = {name: index for index, name in enumerate(self.class_names)}
        labels = [part.labels for part in self._parts]
        return [None if each is None else np.array([number[name] for name in each.names], np.int64) for each in labels]

    def labels(self, indices: np.ndarray | None = None) -> np.ndarray:
        """int64 [B], the class of each frame at the indices int64 [B], by default of all.

        Raises:
            UsageError: a source, sampled or not, has no classes.
        """
        bare = [part.name for part in self._parts if part.labels is None]
        if bare:
            raise UsageError(
                f"{', '.join(bare)} has no labels: classes are folders, as in <data>/<class>/<image or video>, the "
                "tasks of episodes, or the .cls files or folders of WebDataset shards"
            )
        indices = np.arange(len(self)) if indices is None else np.asarray(indices)
        found = np.empty(len(indices), np.int64)
        owners = np.searchsorted(self._stops, indices, side="right")
        for owner in np.unique(owners):
            part, chosen, numbers = self._parts[owner], owners == owner, self._class_numbers[owner]
            assert numbers is not None
            found[chosen] = numbers[part.classes(indices[chosen] - self._start(owner))]
        return found

    def relations(self) -> FrameRelations:
        """How frames belong together."""
        episodes, steps = np.empty(len(self), np.int64), np.empty(len(self), np.int64)
        first: dict[int, int] = {}  # episode of each source; all its parts have the same ones
        total = 0
        for number, part in enumerate(self._parts):
            lengths = np.ones(len(part), np.int64) if part.lengths is None else part.lengths
            if part.source not in first:
                first[part.source], total = total, total + len(lengths)
            rows = slice(self._start(number), self._start(number) + len(part))
            episodes[rows] = first[part.source] + np.repeat(np.arange(len(lengths)), lengths)
            steps[rows] = np.arange(len(part)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        cameras = np.repeat(np.arange(len(self._parts)), [len(part) for part in self._parts])
        return FrameRelations(episodes, steps, cameras)

    def values(self, key: str) -> np.ndarray:
        """float64 [N, D] of a key of episode stores; nan for frames that have none.

        Raises:
            UsageError: no store has it, or it has other shapes than [D] or not the same in all.
        """
        found = [None if part.store is None else _vectors(part.store, key, len(part)) for part in self._parts]
        widths = {array.shape[1] for array in found if array is not None}
        if len(widths) != 1:
            raise UsageError(
                f"{key} has {' and '.join(map(str, sorted(widths)))} elements in different stores"
                if widths
                else f"no episode store in data has the key {key}"
            )
        (width,) = widths
        blank = [np.full((len(part), width), np.nan) for part in self._parts]
        return np.concatenate([none if array is None else array for array, none in zip(found, blank, strict=True)])

    def sources_without(self, chosen: np.ndarray, *, among: np.ndarray | None = None) -> list[str]:
        """Names of the sources of which no frame is chosen, bool [N].

        Args:
            chosen: bool [N].
            among: sources without any of these, bool [N], and those with weight 0, are not asked.
        """
        sources = self._sources()
        drawn = np.ones(len(self), bool) if among is None else among
        if self._weights is not None:
            drawn = drawn & (np.asarray(self._weights)[sources] > 0)
        missing = np.setdiff1d(sources[drawn], sources[chosen])
        names = {part.source: part.name for part in reversed(self._parts)}  # the first part of each
        return [names[int(source)] for source in missing]

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

    def _start(self, number: int) -> int:
        return int(self._stops[number]) - len(self._parts[number])

    def _sources(self) -> np.ndarray:
        """int64 [N]: which source each frame is of."""
        return np.repeat([part.source for part in self._parts], [len(part) for part in self._parts])


def _vectors(folder: Path, key: str, frames: int) -> np.ndarray | None:
    """float64 [F, D] of a key of a store; None if it has no such key."""
    store = EpisodeStore.open(folder)
    if key not in store.keys:
        return None
    if len(store.keys[key].shape) != 1:
        raise UsageError(f"{key} of {folder.name} is no vector: {store.keys[key].describe()}")
    return store.read(key, 0, frames).astype(np.float64)
