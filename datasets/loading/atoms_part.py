"""`visual_atoms` as a source of pre-training frames: drawn when they are asked for, never kept."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from multiprocessing import get_context

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.files import hash_json
from embodied.datasets.loading.frame_parts import FramePart
from embodied.datasets.loading.visual_atoms import atom_labels, render_atoms

VISUAL_ATOMS = "visual_atoms"
_PIECES = 4  # of a batch, per worker


@dataclass(frozen=True)
class Atoms:
    """Which pictures `visual_atoms` stands for.

    Attributes:
        classes: how many of them are different in kind.
        frames: how many there are; more cost nothing.
        seed: of the classes and the pictures.
        workers: processes that draw, for a GPU would wait for one; 0: the process that asks.
    """

    classes: int = 1000
    frames: int = 100_000
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise UsageError(f"visual_atoms.workers must not be negative, got {self.workers}")
        if not 1 <= self.classes <= self.frames:
            raise UsageError(
                "visual_atoms needs at least one class and one frame of each, got "
                f"classes={self.classes} and frames={self.frames}"
            )


@dataclass(frozen=True)
class AtomFrames:
    """The pictures as rows of a part, of `size` pixels; see `loading.visual_atoms`."""

    atoms: Atoms
    size: int

    def __len__(self) -> int:
        return self.atoms.frames

    def take(self, indices: np.ndarray) -> np.ndarray:
        """uint8 [B, S, S, 3] at indices int64 [B]."""
        atoms = self.atoms
        draw = partial(render_atoms, size=self.size, classes=atoms.classes, seed=atoms.seed)
        if not atoms.workers:
            return draw(indices)
        # Classes differ a hundredfold in what they take: small pieces, or all would wait for one worker.
        pieces = np.array_split(indices, max(1, min(len(indices), _PIECES * atoms.workers)))
        return np.concatenate(list(_drawers(atoms.workers).map(draw, pieces)))


@cache
def _drawers(workers: int) -> ProcessPoolExecutor:
    """Processes that stay until this one ends."""
    # Not forked: a process with threads, such as one that trains, must not be.
    return ProcessPoolExecutor(workers, mp_context=get_context("forkserver"))


@dataclass(frozen=True)
class AtomLabels:
    """The classes of drawn pictures.

    Attributes:
        classes: how many.
    """

    classes: int

    @property
    def names(self) -> Sequence[str]:
        """`atom_000`, `atom_001`, ..."""
        width = len(str(self.classes - 1))
        return [f"atom_{number:0{width}d}" for number in range(self.classes)]

    def take(self, indices: np.ndarray) -> np.ndarray:
        """int64 [B] at indices int64 [B]."""
        return atom_labels(indices, self.classes)


def atoms_part(atoms: Atoms, size: int, *, source: int) -> FramePart:
    """A part of drawn pictures of `size` pixels."""
    return FramePart(
        kind=VISUAL_ATOMS,
        name=VISUAL_ATOMS,
        frames=AtomFrames(atoms, size),
        valid=None,
        fingerprint=hash_json([VISUAL_ATOMS, size, atoms.classes, atoms.frames, atoms.seed]),
        source=source,
        skipped=0,
        held=None,
        labels=AtomLabels(atoms.classes),
    )
