"""Recorded demonstrations, in place of those that an expert makes in a simulator."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """Which episodes of which store an experiment learns from, and on which it is judged.

    Args:
        location: the store, as `EpisodeStore.open` takes it.
        trained: numbers of episodes, ascending.
        held_out: the same, never trained on; empty where the policy is judged in a simulator.
    """

    location: str
    trained: tuple[int, ...]
    held_out: tuple[int, ...] = ()
