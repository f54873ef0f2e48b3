"""What every source of pre-training frames comes to: parts, each with frames, and labels and episodes where it has any.

Legend: F frames of a part, S image size, E episodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from embodied.core.protocols import Reporter
from embodied.datasets.loading.array_cache import ArrayCache
from embodied.datasets.loading.materialized import Materialized
from embodied.datasets.loading.npy_rows import Rows

BLOCK = 64  # frames decoded between two commits: bounds memory and what a crash costs


@dataclass(frozen=True)
class FrameCaches:
    """Where frames are decoded to: the folder of caches and its cap, their size, and who is shown progress."""

    root: Path
    size: int
    max_bytes: int | None
    reporter: Reporter


class FrameRows(Protocol):
    """The frames of a part: `npy_rows.Rows`, or what makes them when they are asked for."""

    def __len__(self) -> int: ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [B, S, S, 3] at rows int64 [B]."""
        ...


class LabelRows(Protocol):
    """The classes of the rows of a part."""

    @property
    def names(self) -> Sequence[str]:
        """Of the classes, sorted."""
        ...

    def take(self, indices: np.ndarray) -> np.ndarray:
        """int64 [B] at rows int64 [B]: positions in `names`."""
        ...


@dataclass(frozen=True)
class NamedLabels:
    """Classes that are known row by row.

    Attributes:
        names: of the classes, sorted.
        numbers: int64 [F], positions in `names`.
    """

    names: tuple[str, ...]
    numbers: np.ndarray

    @classmethod
    def of(cls, classes: Sequence[str]) -> NamedLabels:
        """From the name of every row's class."""
        names, numbers = np.unique(np.array(classes), return_inverse=True)
        return cls(tuple(map(str, names)), numbers.astype(np.int64))

    def take(self, indices: np.ndarray) -> np.ndarray:
        return self.numbers[indices]


def folder_labels(paths: Sequence[Path], root: Path) -> NamedLabels | None:
    """The first folder below `root` that each file is in; None where a file lies in `root` itself."""
    below = [path.relative_to(root).parts for path in paths]
    return NamedLabels.of([parts[0] for parts in below]) if all(len(parts) > 1 for parts in below) else None


@dataclass(frozen=True)
class FramePart:
    """The frames of one source under one key; cheap to send to worker processes.

    Attributes:
        kind, name: for people.
        frames: F rows.
        valid: uint8, 1 = the row holds a frame; None where all do.
        fingerprint: of the frames and their order.
        source: which of the caller's sources it belongs to.
        skipped: rows that hold none.
        held: open, so that nobody deletes it.
        labels: of the rows; None where the source has none.
        lengths: int64 [E], how many of the frames, one after the other, each episode has; None for single pictures.
        store: the episode store they come from.
    """

    kind: str
    name: str
    frames: FrameRows
    valid: Rows | None
    fingerprint: str
    source: int
    skipped: int
    held: ArrayCache | Materialized | None
    labels: LabelRows | None = None
    lengths: np.ndarray | None = None
    store: Path | None = None

    def __len__(self) -> int:
        return len(self.frames) - self.skipped

    def take(self, numbers: np.ndarray) -> np.ndarray:
        """Frames uint8 [B, S, S, 3], numbered int64 [B] without the rows that hold none."""
        return self.frames.take(self._rows(numbers))

    def classes(self, numbers: np.ndarray) -> np.ndarray:
        """int64 [B], positions in `labels.names`, of frames numbered as in `take`."""
        assert self.labels is not None
        return self.labels.take(self._rows(numbers))

    def _rows(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self.valid is None else self._sound[numbers]

    @cached_property
    def _sound(self) -> np.ndarray:
        assert self.valid is not None
        return np.flatnonzero(self.valid.maps()[0])

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in {**self.__dict__, "held": None}.items() if key != "_sound"}
