"""Which frames are shown together: of one episode in time, of one moment at several cameras, of one place.

An objective with a `pairing` gets `partners` uint8 [B, P, H, W, 3] in its batches, drawn anew in every step as a
function of seed and step. Legend: N frames of the data, B frames of a batch, P partners of each, D coordinates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from embodied.core.errors import UsageError, unknown_name
from embodied.core.pairing import PairableFrames, Pairing, Partners

PAIRINGS = ("time", "cameras", "places")
LABELS = "labels"


def make_pairing(
    pairing: str,
    *,
    gap: Sequence[int] = (1, 8),
    place: str = LABELS,
    place_dims: Sequence[int] | None = None,
    place_size: float = 0.5,
    partners: int = 1,
) -> Pairing:
    """The pairing of a configuration.

    Args:
        pairing: `time`, `cameras` or `places`.
        gap: for `time`; see `TimePairs`.
        place, place_dims, place_size: for `places`; see `PlacePairs`.
        partners: P.

    Raises:
        UsageError: a setting makes no sense.
    """
    if pairing == "time":
        if not isinstance(gap, Sequence) or len(gap) != 2:
            raise UsageError(f"gap must be two numbers of frames, [least, most], got {gap}")
        return TimePairs(gap=(int(gap[0]), int(gap[1])), partners=partners)
    if pairing == "cameras":
        return CameraPairs(partners=partners)
    if pairing == "places":
        dims = None if place_dims is None else tuple(int(each) for each in place_dims)
        return PlacePairs(place=place, dims=dims, size=float(place_size), partners=partners)
    raise unknown_name("objective.pairing", pairing, PAIRINGS)


@dataclass(frozen=True)
class TimePairs:
    """An earlier frame of the same episode and camera.

    Every frame that has one is drawn alike; the gap is then uniform among those in the range that stay within the
    episode.

    Attributes:
        gap: frames between the two, at least and at most.
        partners: P, drawn one by one: they may repeat.
    """

    gap: tuple[int, int]
    partners: int = 1

    def __post_init__(self) -> None:
        _require_partners(self.partners)
        if not 1 <= self.gap[0] <= self.gap[1]:
            raise UsageError(f"gap must be two numbers of frames, 1 <= least <= most, got {list(self.gap)}")

    @property
    def wants(self) -> str:
        return f"two frames of one episode at least {self.gap[0]} apart (objective.gap)"

    def bind(self, frames: PairableFrames, usable: np.ndarray | None = None) -> Partners:
        """See `core.pairing.Pairing`."""
        return _Earlier(frames.relations().steps, self.gap, self.partners, usable)


@dataclass(frozen=True)
class CameraPairs:
    """The same moment at another camera of the episode store.

    Attributes:
        partners: P, drawn one by one: they may repeat.
    """

    partners: int = 1

    def __post_init__(self) -> None:
        _require_partners(self.partners)

    @property
    def wants(self) -> str:
        return "two cameras that see the same moments (objective.pairing=cameras)"

    def bind(self, frames: PairableFrames, usable: np.ndarray | None = None) -> Partners:
        """See `core.pairing.Pairing`."""
        relations = frames.relations()
        moments = relations.episodes * (int(relations.steps.max(initial=0)) + 1) + relations.steps
        return _Others(moments, relations.cameras, self.partners, _all_or(usable, len(moments)))


@dataclass(frozen=True)
class PlacePairs:
    """The same place on another visit (the pairs of Pair-VPR, Hausler and Moghadam 2025, arXiv 2410.06614).

    A place is a class of a folder layout (`root/<place>/<visit>.jpg`), or a cell of a regular grid over coordinates
    that an episode store holds; another visit is another episode, and every single picture is one. Our choice: cells,
    not distances, so two frames on either side of a border are never a pair, and two in a cell are at most its diagonal
    apart.

    Attributes:
        place: `labels`, or a key of the store such as `observation.state`.
        dims: which of its elements are coordinates; None: all.
        size: side of a cell, in the unit of the key.
        partners: P, drawn one by one: they may repeat.
    """

    place: str = LABELS
    dims: tuple[int, ...] | None = None
    size: float = 0.5
    partners: int = 1

    def __post_init__(self) -> None:
        _require_partners(self.partners)
        if not 0 < self.size < float("inf"):
            raise UsageError(f"place_size must be positive, got {self.size}")

    @property
    def wants(self) -> str:
        return f"two visits of one place (objective.pairing=places, objective.place={self.place})"

    def bind(self, frames: PairableFrames, usable: np.ndarray | None = None) -> Partners:
        """See `core.pairing.Pairing`."""
        if self.place == LABELS:
            places = frames.labels()
            usable = _all_or(usable, len(places))
        else:
            places, known = self._cells(frames.values(self.place))
            usable = known & _all_or(usable, len(places))
        return _Others(places, frames.relations().episodes, self.partners, usable)

    def _cells(self, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The cell of each frame, int64 [N], and which frames have one, bool [N]."""
        if self.dims is not None:
            wrong = [each for each in self.dims if not 0 <= each < values.shape[1]]
            if wrong or not self.dims:
                raise UsageError(
                    f"place_dims must name elements 0 to {values.shape[1] - 1} of {self.place}, got {list(self.dims)}"
                )
            values = values[:, self.dims]
        known = np.isfinite(values).all(axis=1)
        corners = np.floor(np.where(known[:, None], values, 0.0) / self.size)
        return np.unique(corners, axis=0, return_inverse=True)[1].reshape(-1).astype(np.int64), known


class _Earlier:
    """Frames before a frame of the same episode."""

    def __init__(self, steps: np.ndarray, gap: tuple[int, int], partners: int, usable: np.ndarray | None) -> None:
        self._steps, self._gap, self._partners = steps, gap, partners
        self.eligible = (steps >= gap[0]) & _all_or(usable, len(steps))

    def draw(self, anchors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        most = np.minimum(self._gap[1], self._steps[anchors])[:, None]
        gaps = random.integers(self._gap[0], most + 1, (len(anchors), self._partners))
        return np.asarray(anchors[:, None] - gaps, np.int64)


class _Others:
    """Members of a frame's group (a moment, a place) that are not in its part of it (a camera, an episode)."""

    def __init__(self, groups: np.ndarray, parts: np.ndarray, partners: int, usable: np.ndarray) -> None:
        chosen = np.flatnonzero(usable)
        self._partners = partners
        self._order = chosen[np.lexsort((parts[chosen], groups[chosen]))]
        # In this order a group is one stretch, and so is each part of it.
        new_group = _changes(groups[self._order])
        self._group_start, self._group_size = self._stretches(new_group, len(groups))
        self._part_start, self._part_size = self._stretches(new_group | _changes(parts[self._order]), len(groups))
        self.eligible = self._group_size > self._part_size

    def _stretches(self, new: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
        """Start and length of the stretch each frame is in, int64 [N] each; 0 for frames that are in none."""
        starts = np.flatnonzero(new)
        sizes = np.diff(starts, append=len(new))
        which = np.cumsum(new) - 1
        start, size = np.zeros(frames, np.int64), np.zeros(frames, np.int64)
        start[self._order], size[self._order] = starts[which], sizes[which]
        return start, size

    def draw(self, anchors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        columns = (self._group_start, self._group_size, self._part_start, self._part_size)
        first, count, own, own_count = (column[anchors][:, None] for column in columns)
        place = first + random.integers(0, count - own_count, (len(anchors), self._partners))
        return np.asarray(self._order[place + np.where(place >= own, own_count, 0)], np.int64)


def _changes(values: np.ndarray) -> np.ndarray:
    """bool [N]: whether a value differs from the one before; the first does."""
    return np.concatenate([np.ones(min(len(values), 1), bool), values[1:] != values[:-1]])


def _all_or(usable: np.ndarray | None, count: int) -> np.ndarray:
    return np.ones(count, bool) if usable is None else usable


def _require_partners(partners: int) -> None:
    if partners < 1:
        raise UsageError(f"partners must be at least 1, got {partners}")
