"""`curate_entropy=` and `curate_loss=` of `embodied pretrain`: which frames are drawn how often."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from embodied.cli.settings import cache_bytes, resolve_cache
from embodied.cli.targets import objective_class
from embodied.core.errors import UsageError, UserError
from embodied.core.files import hash_json
from embodied.core.protocols import Reporter
from embodied.core.run_folder import RunFolder
from embodied.datasets.loading.frame_dataset import FrameDataset
from embodied.encoders.artifact import fingerprint
from embodied.models.vit_arguments import is_number
from embodied.training.curation import ScoreCache, draw_shares, frame_entropies, frame_losses
from embodied.training.pretrain_state import STATE, load_weights

MOST_BITS = 8  # of a channel of 256 levels


@dataclass(frozen=True)
class Curation:
    """What is drawn how often.

    Attributes:
        shares: float [N], from 0, never, to 1; None: all frames alike.
        told: a line for the user.
    """

    shares: np.ndarray | None = None
    told: str = ""


def check_curation(config: DictConfig) -> None:
    """The settings by themselves, before anything is read.

    Raises:
        UsageError: one makes no sense.
    """
    bits = config.curate_entropy
    if bits is not None and not (is_number(bits) and 0 <= bits < MOST_BITS):
        raise UsageError(f"curate_entropy must be a number of bits in [0, {MOST_BITS}), or null, got {bits!r}")


def open_curation(
    config: DictConfig,
    frames: FrameDataset,
    *,
    build: Callable[[DictConfig], nn.Module],
    device: torch.device,
    reporter: Reporter,
) -> Curation:
    """The curation that the settings ask for; see `check_curation`.

    Args:
        config: of the verb.
        frames: of `data`.
        build: makes the objective of an earlier run's configuration.
        device: where its losses are computed.
        reporter: shows progress.

    Raises:
        UsageError: no frame is left, or the earlier run rebuilds no single frames.
        UserError: there is no such run.
    """
    if config.curate_entropy is None and config.curate_loss is None:
        return Curation()
    cache = ScoreCache(resolve_cache(config) / "curation", cache_bytes(config), reporter)
    entropies = losses = None
    if config.curate_entropy is not None:
        entropies = frame_entropies(frames, cache)
    if config.curate_loss is not None:
        objective, print_of_it = open_earlier(Path(str(config.curate_loss)).expanduser(), build)
        losses = frame_losses(frames, objective.to(device), cache, fingerprint=print_of_it)
    shares = draw_shares(entropies=entropies, least=float(config.curate_entropy or 0.0), losses=losses)
    if not shares.any():
        most = "" if entropies is None else f": the most that a frame has are {entropies.max():.2f} bits"
        raise UsageError(f"curate_entropy and curate_loss leave no frame of data{most}")
    return Curation(shares, describe(frames, shares, weighed=losses is not None))


def open_earlier(folder: Path, build: Callable[[DictConfig], nn.Module]) -> tuple[nn.Module, str]:
    """The trained objective of a run folder, and what its losses depend on.

    Raises:
        UsageError: it rebuilds no single frames.
        UserError: there is no such run of `embodied pretrain`, or no checkpoint in it.
    """
    run = RunFolder.open(folder)
    config = OmegaConf.load(run.path / "config.yaml")
    if not isinstance(config, DictConfig) or OmegaConf.select(config, "objective._target_") is None:
        raise UserError(f"curate_loss={folder} is no run of embodied pretrain")
    method = objective_class(config)
    if not hasattr(method, "reconstruct"):
        raise UsageError(
            f"curate_loss={folder}: {method.__name__} does not rebuild frames, so its loss says little about one: "
            "give a run of objective=mae, pixio, ..."
        )
    objective = build(config)
    step = load_weights(objective, run.checkpoints / STATE)
    assert isinstance(objective.encoder, nn.Module)
    return objective, hash_json([run.config_hash, step, fingerprint(objective.encoder)])


def describe(frames: FrameDataset, shares: np.ndarray, *, weighed: bool) -> str:
    """How many frames of each source can be drawn, and how often on average."""
    parts = frames.describe()
    stops = np.cumsum([part["frames"] for part in parts])
    kept = [
        f"{part['name']} {int((own > 0).sum())} of {len(own)}"
        for part, own in zip(parts, np.split(shares, stops[:-1]), strict=True)
    ]
    mean = f", at {shares[shares > 0].mean():.2f} on average" if weighed else ""
    return f"curation: {int((shares > 0).sum())} of {len(shares)} frames are drawn{mean} ({', '.join(kept)})"
