"""Quantiles of a stream in bounded memory: a deterministic sketch that merges (Manku, Rajagopalan and Lindsay, 1998).

E elements, each with a distribution of its own; V values of every element. Level l holds values that stand for 2**l of
the stream. A level with `capacity` values is sorted, and every other one moves up, in turn the odd and the even ones.
Up to `capacity` - 1 values nothing has moved yet: quantiles are exact. After that the rank of a quantile is wrong by at
most V * levels / capacity (1 % at a million frames and the capacity of vectors, in practice a tenth of it).
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MOST_CAPACITY = 1024
_LEAST_CAPACITY = 64
_CAPACITY_TIMES_ELEMENTS = 1 << 16  # bounds a sketch of large frames, at the cost of its accuracy
_MOST_LEVELS = 48


def capacity_of(elements: int) -> int:
    """Values a level of a sketch of `elements` elements may reach: a power of two from 64 to 1024."""
    wanted = _CAPACITY_TIMES_ELEMENTS // max(1, elements)
    return max(_LEAST_CAPACITY, min(MOST_CAPACITY, 1 << max(0, wanted.bit_length() - 1)))


@dataclass(frozen=True)
class QuantileSketch:
    """Immutable; `levels[l]` is [n, E] in the dtype of the stream, `flips[l]` says which half moves up next."""

    levels: tuple[np.ndarray, ...]
    flips: tuple[int, ...]

    @classmethod
    def of(cls, values: np.ndarray) -> QuantileSketch:
        """The sketch of `values` [V, E]."""
        return _compacted([values], [0])

    @property
    def exact(self) -> bool:
        return len(self.levels) == 1

    def merged(self, other: QuantileSketch) -> QuantileSketch:
        """The sketch of both streams; the order matters for ties of accuracy only."""
        count = max(len(self.levels), len(other.levels))
        levels = [
            np.concatenate([sketch.levels[level] for sketch in (self, other) if level < len(sketch.levels)])
            for level in range(count)
        ]
        flips = [
            sum(sketch.flips[level] for sketch in (self, other) if level < len(sketch.flips)) for level in range(count)
        ]
        return _compacted(levels, flips)

    def quantiles(self, fractions: list[float]) -> np.ndarray:
        """float64 [Q, E]; while nothing has moved up these are NumPy's own (linear interpolation)."""
        if self.exact:
            return np.quantile(self.levels[0].astype(np.float64), fractions, axis=0)
        values = np.concatenate(self.levels)
        weights = np.repeat([1 << level for level in range(len(self.levels))], [len(level) for level in self.levels])
        order = np.argsort(values, axis=0, kind="stable")
        ranks = np.cumsum(weights[order], axis=0)  # (V, E)
        rows = [(ranks < fraction * ranks[-1]).sum(axis=0) for fraction in fractions]
        sorted_values = np.take_along_axis(values, order, axis=0)
        picked = [np.take_along_axis(sorted_values, np.minimum(row, len(values) - 1)[None], axis=0)[0] for row in rows]
        return np.asarray(picked, np.float64)

    def to_json(self) -> dict[str, Any]:
        """The levels one after the other, base64 of their little-endian bytes."""
        values = np.concatenate(self.levels)
        data = np.ascontiguousarray(values.astype(values.dtype.newbyteorder("<"), copy=False)).tobytes()
        return {
            "counts": [len(level) for level in self.levels],
            "flips": list(self.flips),
            "values": base64.b64encode(data).decode(),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any], *, dtype: np.dtype, elements: int) -> QuantileSketch:
        """The sketch that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: the record is not one.
        """
        counts = [int(count) for count in record["counts"]]
        flips = tuple(int(flip) for flip in record["flips"])
        values = np.frombuffer(base64.b64decode(record["values"], validate=True), dtype.newbyteorder("<"))
        values = values.astype(dtype, copy=False).reshape(sum(counts), elements)
        if not 0 < len(counts) <= _MOST_LEVELS or len(flips) != len(counts) or min(counts) < 0 or not len(values):
            raise ValueError(f"{len(counts)} levels of {counts} values cannot be a sketch")
        return cls(tuple(np.split(values, np.cumsum(counts)[:-1])), flips)


def _compacted(levels: list[np.ndarray], flips: list[int]) -> QuantileSketch:
    capacity = capacity_of(levels[0].shape[1])
    level = 0
    while level < len(levels):
        if len(levels[level]) >= capacity:
            if level + 1 == len(levels):
                levels.append(levels[level][:0])
                flips.append(0)
            keep = len(levels[level]) % 2  # an odd one out stays where it is
            moving = np.sort(levels[level][keep:], axis=0)
            levels[level + 1] = np.concatenate([levels[level + 1], moving[flips[level] % 2 :: 2]])
            levels[level] = levels[level][:keep]
            flips[level] += 1
        level += 1
    return QuantileSketch(tuple(levels), tuple(flip % 2 for flip in flips))
