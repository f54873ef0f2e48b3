"""Statistics of a key that grow with every episode: mean, spread, range and quantiles, without reading old frames.

A vector has them per element, over all its frames. An image, a depth map or any frame of more than 1024 elements has
them per channel (the last axis where it is at most 4 wide) or, without channels, as one number: over up to 32 frames of
each episode, evenly spaced, and at most 64 rows and columns of a frame, evenly spaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from embodied.core.protocols import IMAGE_PREFIX
from embodied.datasets.store.chunk_codecs import decode_jpeg, in_threads
from embodied.datasets.store.episode_index import KeySpec, may_lack_values
from embodied.datasets.store.quantile_sketch import QuantileSketch

QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
MOST_FRAMES = 32  # of an episode, for frames that are sampled
MOST_ROWS = 64  # and columns of such a frame
_MOST_SKETCHED = 4096  # values per channel that one episode adds to the sketch of such frames
_MOST_CHANNELS = 4
_LARGEST_VECTOR = 1024  # elements
ReadFrames = Callable[[int, int], np.ndarray]
_BLOCK = 4096  # frames of a vector


@dataclass(frozen=True)
class RunningStatistics:
    """Count, mean, sum of squared deviations and range of each element, after Chan, Golub and LeVeque (1979)."""

    count: int
    mean: np.ndarray
    squares: np.ndarray
    low: np.ndarray
    high: np.ndarray
    sketch: QuantileSketch

    @classmethod
    def of(cls, values: np.ndarray, *, sketch_every: int = 1) -> RunningStatistics:
        """The statistics of `values` [V, E], V at least 1; quantiles from every `sketch_every`-th."""
        numbers = values.astype(np.float64)
        mean = numbers.mean(axis=0)
        squares = ((numbers - mean) ** 2).sum(axis=0)
        sketch = QuantileSketch.of(values[::sketch_every])
        return cls(len(values), mean, squares, numbers.min(axis=0), numbers.max(axis=0), sketch)

    def merged(self, other: RunningStatistics) -> RunningStatistics:
        """The statistics of both sets of values together."""
        count = self.count + other.count
        delta = other.mean - self.mean
        return RunningStatistics(
            count,
            self.mean + delta * (other.count / count),
            self.squares + other.squares + delta**2 * (self.count * other.count / count),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
            self.sketch.merged(other.sketch),
        )

    def summary(self, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
        """float64 `mean`, `std` (of the population), `min`, `max` and `q01` to `q99`, each of `shape`."""
        found = {"mean": self.mean, "std": np.sqrt(self.squares / self.count), "min": self.low, "max": self.high}
        found |= zip(QUANTILES, self.sketch.quantiles(list(QUANTILES.values())), strict=True)
        return {name: value.reshape(shape) for name, value in found.items()}

    def to_json(self) -> dict[str, Any]:
        arrays = {"mean": self.mean, "squares": self.squares, "low": self.low, "high": self.high}
        lists = {name: array.tolist() for name, array in arrays.items()}
        return {"count": self.count, **lists, "sketch": self.sketch.to_json()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any], spec: KeySpec, key: str) -> RunningStatistics:
        """The statistics that `to_json` wrote.

        Raises:
            ValueError, TypeError, KeyError: the record is not one.
        """
        elements = prod(statistics_shape(key, spec))
        names = ("mean", "squares", "low", "high")
        mean, squares, low, high = (np.asarray(record[name], np.float64).reshape(elements) for name in names)
        sketch = QuantileSketch.from_json(record["sketch"], dtype=_sketch_dtype(spec), elements=elements)
        return cls(int(record["count"]), mean, squares, low, high, sketch)


def statistics_shape(key: str, spec: KeySpec) -> tuple[int, ...]:
    """The shape of each statistic: a frame's own, `[C]` for images, `[]` for large frames without channels."""
    if not _is_sampled(key, spec):
        return spec.shape
    return spec.shape[-1:] if len(spec.shape) > 2 and spec.shape[-1] <= _MOST_CHANNELS else ()


class EpisodeStatistics:
    """The statistics of one episode's frames, which come in blocks; how they are cut changes no more than rounding."""

    def __init__(self, key: str, spec: KeySpec) -> None:
        self._key, self._spec = key, spec
        self._sampled = _is_sampled(key, spec)
        self._total: RunningStatistics | None = None
        self._kept: dict[int, np.ndarray | bytes] = {}  # frame number -> its sampled values [V, E], or its JPEG file
        self._every, self._seen = 1, 0

    def add(self, frames: np.ndarray | list[bytes]) -> None:
        """Count `frames` [T, ...] in, or those that JPEG files hold, of which only what is sampled is decoded."""
        if not self._sampled:
            array = frames if isinstance(frames, np.ndarray) else np.stack(list(map(self._decoded, frames)))
            values = array.reshape(len(array), -1).astype(_sketch_dtype(self._spec), copy=False)
            for start in range(0, len(values), _BLOCK):  # bounds the float64 copies
                new = RunningStatistics.of(values[start : start + _BLOCK])
                self._total = new if self._total is None else self._total.merged(new)
            return
        for number, frame in enumerate(frames, self._seen):
            if number % self._every:
                continue
            self._kept[number] = frame if isinstance(frame, bytes) else self._sample(frame)
            if len(self._kept) > MOST_FRAMES:
                self._every *= 2
                self._kept = {kept: values for kept, values in self._kept.items() if kept % self._every == 0}
        self._seen += len(frames)

    def result(self) -> RunningStatistics | None:
        """None if no value was finite."""
        if not self._sampled:
            return self._total
        kept = list(self._kept.values())
        each = in_threads if any(isinstance(value, bytes) for value in kept) else map
        values = np.concatenate(list(each(self._values, kept)))
        return RunningStatistics.of(values, sketch_every=-(-len(values) // _MOST_SKETCHED)) if len(values) else None

    def _values(self, kept: np.ndarray | bytes) -> np.ndarray:
        return self._sample(self._decoded(kept)) if isinstance(kept, bytes) else kept

    def _decoded(self, file: bytes) -> np.ndarray:
        return decode_jpeg(file, self._spec.shape)

    def _sample(self, frame: np.ndarray) -> np.ndarray:
        channels = statistics_shape(self._key, self._spec)
        space = frame.shape[: frame.ndim - len(channels)]
        picked = frame[tuple(slice(None, None, -(-size // MOST_ROWS)) for size in space)]
        values = picked.reshape(-1, prod(channels))
        if may_lack_values(self._key) and values.dtype.kind == "f":
            values = values[np.isfinite(values).all(axis=1)]
        return values.astype(_sketch_dtype(self._spec))


def _is_sampled(key: str, spec: KeySpec) -> bool:
    return key.startswith(IMAGE_PREFIX) or may_lack_values(key) or prod(spec.shape) > _LARGEST_VECTOR


def _sketch_dtype(spec: KeySpec) -> np.dtype:
    dtype = np.dtype(spec.dtype)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype


def statistics_of(key: str, spec: KeySpec, lengths: Iterable[int], read: ReadFrames) -> RunningStatistics | None:
    """The statistics of episodes that are stored one after the other, read again; None if no value was finite."""
    total, start = None, 0
    for length in lengths:
        episode = EpisodeStatistics(key, spec)
        if _is_sampled(key, spec):
            every = 1
            while -(-length // every) > MOST_FRAMES:
                every *= 2
            for frame in range(start, start + length, every):
                episode.add(read(frame, frame + 1))
        else:
            for first in range(start, start + length, _BLOCK):
                episode.add(read(first, min(first + _BLOCK, start + length)))
        new, start = episode.result(), start + length
        total = total.merged(new) if total and new else total or new
    return total
