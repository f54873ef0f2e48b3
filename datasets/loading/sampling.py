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
    With weights every index is drawn by itself, with replacement. Several processes that train together (ranks) share
    each step's batch of `world_size` times B indices: rank r takes the r-th B of them, so the data of a run does not
    depend on how many processes there are as long as B times their number stays.

    Args:
        num_items: N.
        batch_size: B, of one rank, which may exceed N.
        seed: of the permutations or draws.
        weights: one per item, not negative; they need not add up to 1.
        rank: of this process, from 0.
        world_size: how many processes there are.

    Raises:
        UsageError: an argument makes no sense.
    """

    def __init__(
        self,
        num_items: int,
        *,
        batch_size: int,
        seed: int,
        weights: Sequence[float] | np.ndarray | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if num_items < 1 or batch_size < 1:
            raise UsageError(f"num_items and batch_size must be at least 1, got {num_items} and {batch_size}")
        if not 0 <= rank < world_size:
            raise UsageError(f"rank must be from 0 to world_size - 1, got {rank} of {world_size}")
        self.num_items, self.batch_size, self.seed = num_items, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self._cumulative: np.ndarray | None = None
        if weights is not None:
            array = np.asarray(weights, np.float64)
            if array.shape != (num_items,) or not np.isfinite(array).all() or (array < 0).any() or not array.any():
                raise UsageError(f"weights: expected {num_items} numbers, none negative, not all zero")
            self._cumulative = np.cumsum(array)
        self._permutation = lru_cache(maxsize=2)(self._compute_permutation)

    def batch(self, step: int) -> np.ndarray:
        """The indices int64 [B] of one step, counted from 0."""
        first, together = self.rank * self.batch_size, self.world_size * self.batch_size
        if self._cumulative is not None:
            drawn = numpy_generator(self.seed, "weighted", step).random(together)[first : first + self.batch_size]
            return np.searchsorted(self._cumulative, drawn * self._cumulative[-1], side="right")
        first += step * together
        epochs, places = np.divmod(np.arange(first, first + self.batch_size), self.num_items)
        return np.concatenate([self._permutation(int(epoch))[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _compute_permutation(self, epoch: int) -> np.ndarray:
        return numpy_generator(self.seed, "epoch", epoch).permutation(self.num_items)

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_permutation"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._permutation = lru_cache(maxsize=2)(self._compute_permutation)
