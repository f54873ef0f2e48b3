"""Batches from several worker processes, the same ones in the same order as from none, from any step on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
from torch.utils.data import DataLoader, Dataset, Sampler

from embodied.core.errors import UsageError
from embodied.datasets.loading.sampling import EpochSampler


class StepBatches(Sampler[np.ndarray]):
    """The batches of indices of steps `start` to `stop`, one after the other."""

    def __init__(self, sampler: EpochSampler, *, start: int, stop: int) -> None:
        self.sampler, self.start, self.stop = sampler, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.sampler.batch(step) for step in range(self.start, self.stop))


def load_batches(
    dataset: Dataset[Any],
    sampler: EpochSampler,
    *,
    start: int = 0,
    stop: int,
    workers: int = 0,
    prefetch: int = 2,
    pin_memory: bool = False,
    start_method: Literal["fork", "spawn", "forkserver"] = "forkserver",
) -> DataLoader[Any]:
    """The batches of training steps `start` to `stop`, as tensors.

        sampler = EpochSampler(len(windows), batch_size=64, seed=0, rank=rank, world_size=world_size)
        for step, batch in enumerate(load_batches(windows, sampler, start=resumed, stop=10_000, workers=4), resumed):

    A batch is a function of dataset, seed and step alone, whatever the workers: to resume at a step, start there, in
    the middle of an epoch as well. A worker gets the paths of the data, not the data, and the batch of indices.

    Args:
        dataset: gives a batch for an array of indices: a `WindowDataset` or `FrameDataset`.
        sampler: says which indices.
        start, stop: steps.
        workers: processes that read; 0 reads in this one.
        prefetch: batches that each worker reads ahead.
        pin_memory: for faster copies to a GPU.
        start_method: of the workers. `fork` starts soonest, and now and then hangs in a process that has rendered or
            has other threads.

    Raises:
        UsageError: an argument makes no sense.
    """
    if not 0 <= start <= stop or workers < 0 or prefetch < 1:
        raise UsageError(
            f"expected 0 <= start <= stop, workers >= 0 and prefetch >= 1, got {start}, {stop}, {workers}, {prefetch}"
        )
    several = {"prefetch_factor": prefetch, "multiprocessing_context": start_method} if workers else {}
    return DataLoader(
        dataset,
        batch_size=None,  # an item of the sampler is a batch already
        sampler=StepBatches(sampler, start=start, stop=stop),
        num_workers=workers,
        pin_memory=pin_memory,
        **several,  # type: ignore[arg-type]
    )
