"""From the batch of a step to what an objective gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from embodied.datasets.loading.frame_batches import IMAGES, FrameBatches
from embodied.datasets.loading.frame_dataset import FrameDataset

Batch = Mapping[str, np.ndarray]
ReadBatch = Callable[[int], np.ndarray | Batch]
"""The batch of a step, counted from 0: frames uint8 [B, S, S, 3], or arrays [B, ...] by name, frames as `images`.

A pure function, so that resuming replays nothing.
"""


def batches_for(
    objective: nn.Module,
    frames: FrameDataset,
    *,
    batch_size: int,
    seed: int,
    only: np.ndarray | None = None,
    shares: np.ndarray | None = None,
) -> FrameBatches:
    """The batches an objective asks for: `labels` by its `wants_labels`, `partners` by its `pairing`.

    Args:
        objective: may have `wants_labels` (bool), with it `expect_classes`, which is told the names of the classes, and
            `pairing` (`core.pairing.Pairing`).
        frames: the data.
        batch_size: B.
        seed: of what is drawn.
        only: frames to draw from, bool [N], whole episodes; None: all.
        shares: how often each is drawn, float [N]; see `FrameBatches`.

    Raises:
        UsageError: the data lack what it asks for, or hold more classes than it has.
    """
    labels = bool(getattr(objective, "wants_labels", False))
    batches = FrameBatches(
        frames,
        batch_size=batch_size,
        seed=seed,
        labels=labels,
        pairing=getattr(objective, "pairing", None),
        only=only,
        shares=shares,
    )
    if labels and hasattr(objective, "expect_classes"):
        objective.expect_classes(frames.class_names)  # type: ignore[operator]
    return batches


def as_batch(found: np.ndarray | Batch) -> Batch:
    """What a `ReadBatch` gives, by name."""
    return {IMAGES: found} if isinstance(found, np.ndarray) else found


def count_rows(batch: Mapping[str, np.ndarray | Tensor]) -> int:
    """B: how many frames, or windows, a batch holds."""
    return len(next(iter(batch.values())))


def to_tensors(batch: Batch, rows: slice, device: torch.device) -> dict[str, Tensor]:
    """Some rows of every array of a batch, on a device."""
    return {name: torch.from_numpy(np.ascontiguousarray(array[rows])).to(device) for name, array in batch.items()}
