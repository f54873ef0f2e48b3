"""Which frames and patches a page shows: chosen by the data alone, so that pages of two encoders can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from embodied.bench.inspection.samples import Part, spaced

Place = tuple[int, int]
"""Part and frame within it."""


@dataclass(frozen=True)
class Pair:
    """A patch (share of height, share of width) of one frame, and the frames to find it in."""

    frame: Place
    patch: tuple[float, float]
    others: list[Place]


def shown_frames(parts: Sequence[Part], *, rows: int = 3, columns: int = 6) -> list[list[Place]]:
    """Rows of frames: episodes with their moments, or photographs; every part has a row."""
    found: list[list[Place]] = []
    for number, part in enumerate(parts):
        episodes, counts = np.unique(part.episodes, return_counts=True)
        height = max(1, rows // len(parts))
        if counts.max() == 1:  # photographs: no moments
            chosen = spaced(len(part), height * columns)
            places = [(number, index) for index in chosen]
            found += [places[first : first + columns] for first in range(0, len(places), columns)]
            continue
        for episode in episodes[spaced(len(episodes), height)]:
            frames = np.flatnonzero(part.episodes == episode)
            found.append([(number, int(frames[index])) for index in spaced(len(frames), columns)])
    return found


def query_frames(parts: Sequence[Part], count: int) -> list[Place]:
    """Frames of different episodes, each from another time of its own."""
    share = max(1, count // len(parts))
    found = []
    for number, part in enumerate(parts):
        episodes = np.unique(part.episodes)
        chosen = episodes[spaced(len(episodes), share)]
        for rank, episode in enumerate(chosen):
            frames = np.flatnonzero(part.episodes == episode)
            found.append((number, int(frames[round((len(frames) - 1) * (rank + 1) / (len(chosen) + 1))])))
    return found


def pairs(parts: Sequence[Part], count: int, *, grid: tuple[int, int]) -> list[Pair]:
    """For a few frames the patch that moves most, with a later frame of the episode and one of another episode."""
    found = []
    queries = query_frames(parts, count)
    for place in queries:
        part, index = parts[place[0]], place[1]
        same = np.flatnonzero(part.episodes == part.episodes[index])
        other = np.flatnonzero(part.episodes != part.episodes[index])
        others: list[Place] = []
        if len(same) > 1:
            last, first = int(same[-1]), int(same[0])
            others.append((place[0], last if last - index >= index - first else first))
        if len(other):
            middle = len(other) // 2 + len(same) // 2  # not the start of an episode, where nothing happens yet
            others.append((place[0], int(other[min(middle, len(other) - 1)])))
        if len(same) <= 1 and len(other) > 1:
            others.append((place[0], int(other[0])))
        found.append(Pair(place, _busy_patch(part.frames, index, same, grid), others))
    return found


def patch_index(patch: tuple[float, float], grid: tuple[int, int]) -> tuple[int, int]:
    """Row and column in a grid of a point given as shares of height and width."""
    return min(int(patch[0] * grid[0]), grid[0] - 1), min(int(patch[1] * grid[1]), grid[1] - 1)


def _busy_patch(frames: np.ndarray, index: int, same: np.ndarray, grid: tuple[int, int]) -> tuple[float, float]:
    """The centre of the patch that differs most from its episode's median frame; of a photograph the most varied."""
    frame = frames[index].astype(np.float32).mean(axis=2)
    if len(same) > 1:
        change = np.abs(frame - np.median(frames[same].astype(np.float32).mean(axis=3), axis=0))
    else:
        change = np.abs(frame - np.asarray(Image.fromarray(frame).reduce(4).resize(frame.shape[::-1])))
    rows, columns = grid
    cells = np.asarray(Image.fromarray(change).resize((columns, rows), Image.Resampling.BOX)).copy()
    if min(grid) > 4:  # at the border a patch often shows half of something
        cells[[0, -1]] = cells[:, [0, -1]] = -1.0
    row, column = np.unravel_index(int(cells.argmax()), cells.shape)
    return (int(row) + 0.5) / rows, (int(column) + 0.5) / columns
