"""Which frames of pre-training data belong together: what pairings of frames and the data agree on.

Legend: N frames of the data, B frames of a batch, P partners of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np


@dataclass(frozen=True)
class FrameRelations:
    """How frames belong together; the frames of one episode at one camera follow one another.

    Attributes:
        episodes: int64 [N], which episode; the cameras of an episode share it. A single picture is one of its own.
        steps: int64 [N], from 0 within the episode.
        cameras: int64 [N], which camera, of which source.
    """

    episodes: np.ndarray
    steps: np.ndarray
    cameras: np.ndarray


class PairableFrames(Protocol):
    """What a pairing may ask of the data."""

    def relations(self) -> FrameRelations:
        """Of all frames."""
        ...

    def labels(self, indices: np.ndarray | None = None) -> np.ndarray:
        """int64 [B], the class of each frame at the indices int64 [B], by default of all."""
        ...

    def values(self, key: str) -> np.ndarray:
        """float64 [N, D] of a key of episode stores; nan for frames that have none."""
        ...


class Partners(Protocol):
    """A pairing bound to data."""

    @property
    def eligible(self) -> np.ndarray:
        """bool [N]: frames that have partners."""
        ...

    def draw(self, anchors: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """int64 [B, P] for eligible frames int64 [B]."""
        ...


class Pairing(Protocol):
    """How an objective wants its `partners`."""

    @property
    def wants(self) -> str:
        """Completes the message `the objective wants ...`."""
        ...

    def bind(self, frames: PairableFrames, usable: np.ndarray | None = None) -> Partners:
        """The pairing over these frames, or over those that are `usable` (bool [N]; whole episodes).

        Raises:
            UsageError: the data have not what it takes.
        """
        ...
