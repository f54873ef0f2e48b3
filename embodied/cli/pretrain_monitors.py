"""`holdout=`, `holdout_data=` and `panels_every=` of `embodied pretrain`: frames kept from training, and pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from omegaconf import DictConfig, OmegaConf
from torch import nn

from embodied.bench.pretraining import Panels, picture_batch
from embodied.cli.config import positive
from embodied.core.errors import UsageError
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.frame_dataset import FrameDataset
from embodied.datasets.loading.holdout import hold_out
from embodied.training.batches import Batch, batches_for
from embodied.training.holdout import HoldoutLoss

OpenData = Callable[[DictConfig], FrameDataset]
"""Opens the frames of `data`."""


@dataclass(frozen=True)
class Holdout:
    """What is trained on, and what is not.

    Attributes:
        trained: bool [N], the frames of `data` that are trained on; None: all.
        monitor: the loss on what is not; None where nothing is held out.
        pictures: a few frames to draw, of those held out where there are any; see `picture_batch`.
    """

    trained: np.ndarray | None
    monitor: HoldoutLoss | None
    pictures: Batch


def check_holdout(config: DictConfig) -> None:
    """The settings by themselves, before anything is read.

    Raises:
        UsageError: one makes no sense.
    """
    positive(config, "holdout_every", "holdout_frames")
    if config.panels_every is not None:
        positive(config, "panels_every")
    if not 0 <= config.holdout < 1:
        raise UsageError(f"holdout must be in [0, 1), a share of the data, got {config.holdout}")
    if config.holdout and config.holdout_data is not None:
        raise UsageError("holdout takes frames from data, holdout_data has others: choose one")


def open_holdout(config: DictConfig, objective: nn.Module, frames: FrameDataset, open_data: OpenData) -> Holdout:
    """The split that the settings ask for; see `check_holdout`.

    Args:
        config: of the verb.
        objective: which may want labels or partners of the held-out frames too.
        frames: of `data`.
        open_data: for `holdout_data`.

    Raises:
        UsageError: the data cannot be split, or the held-out frames lack what the objective wants.
        UserError: `holdout_data` cannot be read.
    """
    seed = int(config.seed)
    if config.holdout_data is not None:
        others = open_data(OmegaConf.merge(config, {"data": config.holdout_data, "weights": None}))  # type: ignore[arg-type]
        check_others(frames, others, objective)
        monitor = holdout_loss(config, objective, others, None)
        return Holdout(None, monitor, picture_batch(objective, others, seed=seed))
    if not config.holdout:
        return Holdout(None, None, picture_batch(objective, frames, seed=seed))
    held = hold_out(frames.relations(), float(config.holdout), seed=derive_seed(seed, "frames"))
    monitor = holdout_loss(config, objective, frames, held)
    return Holdout(~held, monitor, picture_batch(objective, frames, seed=seed, only=held))


def check_others(frames: FrameDataset, others: FrameDataset, objective: nn.Module) -> None:
    """Frames of `holdout_data` beside those of `data`.

    Raises:
        UsageError: some are trained on, or their labels mean something else.
    """
    known = {part["fingerprint"]: part["name"] for part in frames.describe()}
    both = [part["name"] for part in others.describe() if part["fingerprint"] in known]
    if both:
        raise UsageError(f"holdout_data: {', '.join(both)} is in data too, and would be trained on")
    if getattr(objective, "wants_labels", False) and others.class_names != frames.class_names:
        raise UsageError(
            f"holdout_data must have the classes of data, {', '.join(frames.class_names[:6])}, ...; "
            f"got {', '.join(others.class_names[:6])}, ..."
        )


def holdout_loss(
    config: DictConfig, objective: nn.Module, frames: FrameDataset, held: np.ndarray | None
) -> HoldoutLoss:
    """The loss on at most `holdout_frames` frames of those that are held out, in batches as training computes them."""
    count = min(int(config.holdout_frames), len(frames) if held is None else int(held.sum()))
    size = min(count, int(config.train.batch_size) // int(config.train.accumulate))
    seed = derive_seed(int(config.seed), "holdout")
    return HoldoutLoss(
        batches_for(objective, frames, batch_size=size, seed=seed, only=held),
        batches=-(-count // size),
        every=int(config.holdout_every),
        seed=seed,
        reduced=config.train.precision == "bf16",
    )


def open_panels(
    config: DictConfig, objective: nn.Module, holdout: Holdout, folder: Path, show: Callable[[int, Path], None]
) -> list[Panels]:
    """Pictures while it trains, where the objective can draw any and they are asked for."""
    if config.panels_every is None or not hasattr(objective, "reconstruct"):
        return []
    return [Panels(holdout.pictures, folder, every=int(config.panels_every), seed=int(config.seed), show=show)]
