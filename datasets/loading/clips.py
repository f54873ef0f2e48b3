"""Clips of videos as codes, with the actions and states that go with them where there are any.

B clips per batch, T frames of a clip, N codes of a frame, s stride, A values of an action, P of a state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.core.protocols import ACTION, PAD_SUFFIX, STATE
from embodied.datasets.loading.frame_parts import FrameRows
from embodied.datasets.loading.holdout import split_episodes
from embodied.datasets.loading.npy_rows import Rows
from embodied.datasets.loading.sampling import EpochSampler
from embodied.datasets.loading.sequences import moments
from embodied.datasets.loading.window_index import WindowIndex, window_rows

CODES = "codes"


@dataclass(frozen=True)
class ClipSource:
    """The frames of one camera of a store, or of a folder of videos: episodes one after the other.

    Attributes:
        kind, name: for people.
        origin: the store or folder; cameras of one store share theirs.
        codes: of every frame, [F, N].
        vectors: `action` and `observation.state` of every frame, as far as there are any: [F, A], [F, P].
        starts, lengths: int64 [E], the first row and the number of rows of each episode.
        fingerprint: of the frames, their codes and the vectors.
        fps: frames per second; None where they differ.
        pictures: the frames themselves, uint8 [F, H, W, 3], for people to look at.
        held: caches that stay open, so that nobody makes room by deleting them.
    """

    kind: str
    name: str
    origin: str
    codes: Rows
    vectors: Mapping[str, Rows]
    starts: np.ndarray
    lengths: np.ndarray
    fingerprint: str
    fps: float | None
    pictures: FrameRows
    held: tuple[Any, ...] = field(default=(), repr=False)

    def only(self, places: np.ndarray) -> ClipSource:
        """Some of its episodes, by their places."""
        return replace(self, starts=self.starts[places], lengths=self.lengths[places])


class ClipDataset:
    """All clips of all sources, one source after the other; a clip lies wholly inside an episode.

    Args:
        sources: at least one; see `clip_sources.open_clips`.
        frames: T.
        stride: s, frames from one frame of a clip to the next.
        action_dim: A; 0: no source has actions.
        state_dim: P; 0: no source has states.
        tokenizer: the fingerprint of what made the codes.
        weights: one per source: how often it is drawn from; None: all clips alike.

    Raises:
        UsageError: every episode of every source is shorter than a clip, or the weights make no sense.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        *,
        frames: int,
        stride: int = 1,
        action_dim: int = 0,
        state_dim: int = 0,
        tokenizer: str,
        weights: Sequence[float] | None = None,
    ) -> None:
        if frames < 1 or stride < 1:
            raise UsageError(f"frames and stride of a clip must be at least 1, got {frames} and {stride}")
        if weights is not None and (
            len(weights) != len(sources) or not all(weight >= 0 for weight in weights) or not any(weights)
        ):
            raise UsageError(f"weights: expected {len(sources)}, none negative, not all zero; got {list(weights)}")
        self.sources, self.frames, self.stride, self.tokenizer = list(sources), frames, stride, tokenizer
        self.action_dim, self.state_dim = action_dim, state_dim
        self._weights = None if weights is None else [float(weight) for weight in weights]
        self._offsets = stride * np.arange(frames)
        windows = {CODES: self._offsets}
        self._indices = [WindowIndex.of(each.starts, each.lengths, windows, whole=True) for each in self.sources]
        self._stops = np.cumsum([len(index) for index in self._indices])
        if not len(self):
            longest = max(int(source.lengths.max(initial=0)) for source in self.sources)
            raise UsageError(
                f"a clip of {frames} frames, {stride} apart, spans {self.span}, and the longest episode or video has "
                f"{longest}: set video.frames or video.stride lower"
            )

    @property
    def span(self) -> int:
        """Frames of an episode from the first to the last of a clip."""
        return int(self._offsets[-1]) + 1

    @property
    def sizes(self) -> dict[str, int]:
        """Values per step that a batch holds: of `action`, the s actions until the next frame, and of the state."""
        return {ACTION: self.stride * self.action_dim, STATE: self.state_dim}

    def __len__(self) -> int:
        """The number of clips: one begins at every frame that has enough frames after it."""
        return int(self._stops[-1])

    def batch(self, indices: np.ndarray) -> dict[str, np.ndarray]:
        """The clips at indices int64 [B].

        Returns:
            `codes` int64 [B, T, N]. Where any source has them, `action` float32 [B, T, s * A], what was done from a
            frame on until the next one of the clip, and `observation.state` float32 [B, T, P], with `<key>_is_pad` bool
            [B, T], True = not there: the source has none, or not all of it was before the episode's end (the last
            action). What is not there is zero.

        Raises:
            IndexError: an index is not in 0 to len - 1.
        """
        indices = self._checked(indices)
        shape = (len(indices), self.frames)
        batch = {CODES: np.zeros((*shape, self.sources[0].codes.shape[-1]), np.int64)}
        for key, size in self.sizes.items():
            if size:
                batch[key], batch[key + PAD_SUFFIX] = np.zeros((*shape, size), np.float32), np.ones(shape, bool)
        for place, chosen, rows, stops in self._located(indices):
            source = self.sources[place]
            batch[CODES][chosen] = source.codes.take(rows)
            if STATE in source.vectors:
                batch[STATE][chosen], batch[STATE + PAD_SUFFIX][chosen] = source.vectors[STATE].take(rows), False
            if ACTION in source.vectors:
                batch[ACTION][chosen], batch[ACTION + PAD_SUFFIX][chosen] = self._actions(source, rows, stops)
        return batch

    def pictures(self, indices: np.ndarray) -> list[np.ndarray]:
        """The frames of the clips at indices int64 [B] as their sources have them: B times uint8 [T, H, W, 3]."""
        found: dict[int, np.ndarray] = {}
        for place, chosen, rows, _ in self._located(self._checked(indices)):
            frames = self.sources[place].pictures.take(rows.ravel())
            found |= dict(zip(chosen.tolist(), frames.reshape(*rows.shape, *frames.shape[1:]), strict=True))
        return [found[number] for number in range(len(indices))]

    def sampler(self, *, batch_size: int, seed: int) -> EpochSampler:
        """Batches over all clips, by the weights of their sources; see `EpochSampler`."""
        weights = None
        if self._weights is not None:
            counts = np.array([len(index) for index in self._indices])
            shares = np.where(counts > 0, np.array(self._weights) / np.maximum(counts, 1), 0.0)
            weights = np.repeat(shares, counts)
        return EpochSampler(len(self), batch_size=batch_size, seed=seed, weights=weights)

    def hold_out(self, share: float, *, seed: int) -> tuple[ClipDataset, ClipDataset]:
        """The clips to train on, and those of whole episodes that are kept from it.

        Args:
            share: of the episodes of each source that a clip fits into, in (0, 1); at least one of each source that
                has several, and one stays. An episode's cameras go together.
            seed: of the draw.

        Raises:
            UsageError: no source has two episodes that a clip fits into.
        """
        long = [np.flatnonzero(source.lengths >= self.span) for source in self.sources]
        parts = split_episodes(long, share, seed=seed, groups=[source.origin for source in self.sources])
        kept = [source.only(places) for source, (places, _) in zip(self.sources, parts, strict=True)]
        held = [source.only(places) for source, (_, places) in zip(self.sources, parts, strict=True) if len(places)]
        return self._of(kept, self._weights), self._of(held, None)

    def statistics(self) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Mean and standard deviation float32 of `action` [s * A] and `observation.state` [P], where there are any.

        Over the frames of all sources, held out or not.
        """
        found = {}
        for key, repeats in ((ACTION, self.stride), (STATE, 1)):
            if self.sizes[key]:
                rows = [source.vectors[key] for source in self.sources if key in source.vectors]
                mean, std = moments(rows, self.sizes[key] // repeats)
                found[key] = (np.tile(mean, repeats), np.tile(std, repeats))
        return found

    def fingerprint(self) -> str:
        """SHA-256 (hex) of the sources and their order, of the tokenizer, T and s."""
        return hash_json([self.frames, self.stride, self.tokenizer, [each.fingerprint for each in self.sources]])

    def describe(self) -> list[dict[str, Any]]:
        """Per source: kind, name, frames, keys, weight, fingerprint; for a model card."""
        return [
            {
                "kind": source.kind,
                "name": source.name,
                "frames": int(source.lengths.sum()),
                "keys": [CODES, *sorted(source.vectors)],
                "weight": None if self._weights is None else self._weights[number],
                "fingerprint": source.fingerprint,
            }
            for number, source in enumerate(self.sources)
        ]

    def _checked(self, indices: np.ndarray) -> np.ndarray:
        indices = np.asarray(indices, np.int64)
        if indices.size and (indices.min() < 0 or indices.max() >= len(self)):
            raise IndexError(f"indices must be in 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        return indices

    def _located(self, indices: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray]]:
        """Per source: its number, which of the clips are of it, their rows [b, T], their episodes' ends [b]."""
        places = np.searchsorted(self._stops, indices, side="right")
        found = []
        for place in np.unique(places):
            chosen, index = np.flatnonzero(places == place), self._indices[place]
            owners, first = index.locate(indices[chosen] - (int(self._stops[place]) - len(index)))
            found.append((int(place), chosen, first[:, None] + self._offsets, index.stops[owners]))
        return found

    def _actions(self, source: ClipSource, rows: np.ndarray, stops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The s actions from every row on, [b, T, s * A], and where not all of them were before the episode's end."""
        steps, apart = rows.ravel(), np.arange(self.stride)
        taken, away = window_rows(steps, np.zeros_like(steps), np.repeat(stops, self.frames), apart)
        missing = np.asarray(away.any(axis=1))
        actions = np.where(missing[:, None, None], np.float32(0), source.vectors[ACTION].take(taken))
        return actions.reshape(*rows.shape, -1), missing.reshape(rows.shape)

    def _of(self, sources: Sequence[ClipSource], weights: Sequence[float] | None) -> ClipDataset:
        return ClipDataset(
            sources,
            frames=self.frames,
            stride=self.stride,
            action_dim=self.action_dim,
            state_dim=self.state_dim,
            tokenizer=self.tokenizer,
            weights=weights,
        )
