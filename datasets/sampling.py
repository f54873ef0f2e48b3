"""Which items make up which batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from embodied.core.errors import UsageError
from embodied.core.seeding import numpy_generator


class EpochSampler:
    """Batches of indices as a pure function of seed and step, so that resuming at any step replays nothing.

    Without weights the batches cut a stream of permutations, one after the other: every epoch visits every item once.
    With weights every index is drawn by itself, with replacement.

    Args:
        num_items: N.
        batch_size: B, which may exceed N.
        seed: of the permutations or draws.
        weights: one per item, not negative; they need not add up to 1.
    """

    def __init__(
        self, num_items: int, *, batch_size: int, seed: int, weights: Sequence[float] | np.ndarray | None = None
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise UsageError(f"num_items and batch_size must be at least 1, got {num_items} and {batch_size}")
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self._cumulative: np.ndarray | None = None
        if weights is not None:
            array = np.asarray(weights, np.float64)
            if array.shape != (num_items,) or not np.isfinite(array).all() or (array < 0).any() or not array.any():
                raise UsageError(f"weights: expected {num_items} numbers, none negative, not all zero")
            self._cumulative = np.cumsum(array)
        self._permutation = lru_cache(maxsize=2)(self._compute_permutation)

    def batch(self, step: int) -> np.ndarray:
        """The indices int64 [B] of one step, counted from 0."""
        if self._cumulative is not None:
            draws = numpy_generator(self.seed, "weighted", step).random(self.batch_size) * self._cumulative[-1]
            return np.searchsorted(self._cumulative, draws, side="right")
        positions = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, places = np.divmod(positions, self.num_items)
        return np.concatenate([self._permutation(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _compute_permutation(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "epoch", epoch).permutation(self.num_items)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_permutation"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=2)(self._compute_permutation)
