"""Frames that a pre-training never draws: a share of every source, whole episodes and whole files."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from embodied.core.errors import UsageError
from embodied.core.pairing import FrameRelations
from embodied.core.seeding import numpy_generator


def hold_out(relations: FrameRelations, share: float, *, seed: int) -> Bool[np.ndarray, " N"]:
    """Which frames are held out, a function of the arguments alone.

    Args:
        relations: of all frames. Sources are what shares no episode: an episode's cameras go together.
        share: of the episodes of each source, and of its pictures, in (0, 1); at least one, and one stays.
        seed: of the draw.

    Raises:
        UsageError: the share makes no sense, or no source has two episodes or pictures.
    """
    if not 0 < share < 1:
        raise UsageError(f"holdout must be in (0, 1), or 0 for none, got {share}")
    names, owners = np.unique(relations.episodes, return_inverse=True)
    sources = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(sources, owners, relations.cameras)  # an episode's first camera stands for its source
    held = np.zeros(len(names), bool)
    for source in np.unique(sources):
        episodes = np.flatnonzero(sources == source)
        count = min(max(1, round(share * len(episodes))), len(episodes) - 1)
        order = numpy_generator(seed, "holdout", int(source)).permutation(episodes)
        held[order[:count]] = True
    if not held.any():
        raise UsageError(
            f"holdout={share}: every source of data is a single episode or picture; give holdout_data=<other frames>"
        )
    return held[owners]


def split_episodes(
    episodes: Sequence[np.ndarray], share: float, *, seed: int, groups: Sequence[str] | None = None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """The episodes of every source that are trained on, and those that are held out, ascending.

    Args:
        episodes: of every source, int64 [E], by numbers or places.
        share: of the episodes of each source, in (0, 1); at least one of each source that has several, and one stays.
        seed: of the draw.
        groups: of every source; sources of a group have the same episodes, and the same of them are held out. None:
            each is its own.

    Raises:
        UsageError: no source has two episodes.
    """
    names = list(groups) if groups is not None else [str(number) for number in range(len(episodes))]
    found = []
    for name, there in zip(names, episodes, strict=True):
        order = numpy_generator(seed, "holdout", names.index(name)).permutation(there)
        count = max(0, min(max(1, round(share * len(order))), len(order) - 1))
        found.append((np.sort(order[count:]), np.sort(order[:count])))
    if not any(len(held) for _, held in found):
        raise UsageError(f"holdout={share}: every source of data is a single episode")
    return found
