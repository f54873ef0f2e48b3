"""Frames with times of their own to frames on an even clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import prod

import numpy as np

from embodied.core.errors import UserError

LONGEST_GAP_S = 600.0  # a damaged time must not become millions of repeated frames
_SLACK = 1e-6  # ticks: times are rounded


def evenly_timed(
    timed: Iterable[tuple[np.ndarray, np.ndarray]], fps: float, *, block_bytes: int, where: str
) -> Iterator[np.ndarray]:
    """For each tick from the first frame to the last, the frame whose time is nearest (the earlier of two).

    Args:
        timed: blocks in order: times float64 [T] in seconds, not decreasing, and frames [T, ...].
        fps: ticks per second.
        block_bytes: about the size of the blocks [T, ...] that come out.
        where: names the source in messages.

    Raises:
        UserError: two frames are more than ten minutes apart.
    """
    start, tick = 0.0, 0
    last: tuple[np.ndarray, np.ndarray] | None = None
    for times, frames in timed:
        if last is None:
            start, known, shown = float(times[0]), times, frames
        else:
            known, shown = np.concatenate([last[0], times]), np.concatenate([last[1], frames])
        gaps = np.diff(known, append=known[-1])
        widest = int(gaps.argmax())
        if gaps[widest] > LONGEST_GAP_S:
            raise UserError(f"{where} has no frame for {gaps[widest]:.0f} s after {known[widest]:.1f} s: split it")
        stop = int((known[-1] - start) * fps + _SLACK) + 1
        most = max(1, block_bytes // max(1, shown.itemsize * prod(shown.shape[1:])))
        while tick < stop:
            ticks = start + np.arange(tick, min(stop, tick + most)) / fps
            yield shown[_nearest(known, ticks)]
            tick += len(ticks)
        last = known[-1:], shown[-1:].copy()  # without the copy all of the block would stay in memory


def _nearest(known: np.ndarray, times: np.ndarray) -> np.ndarray:
    after = np.searchsorted(known, times).clip(max=len(known) - 1)
    before = (after - 1).clip(min=0)
    return np.where(times - known[before] <= known[after] - times + 1e-9, before, after)
