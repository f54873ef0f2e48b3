"""What pre-trainings of frames and of sequences share: settings of `embodied pretrain`, its data's paths, its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from omegaconf import DictConfig, ListConfig, OmegaConf

from embodied.cli.config import positive
from embodied.cli.runs import open_run
from embodied.core.errors import UsageError, unknown_name
from embodied.core.run_folder import RunFolder
from embodied.datasets.store.episode_index import is_store
from embodied.models.vit_arguments import is_number
from embodied.training.optimization import PRECISIONS, Recipe, scaled_learning_rate

NUMBERS = ("learning_rate", "weight_decay", "clip", "warmup_steps", "layer_decay", "average")  # of train


def check_training(config: DictConfig) -> None:
    """Raises UsageError where a setting makes no sense."""
    positive(config, *(f"train.{name}" for name in ("steps", "batch_size", "accumulate", "checkpoint_every")))
    numbers(config, "seed", "holdout", *(f"train.{name}" for name in NUMBERS))
    if config.train.learning_rate <= 0 or config.train.weight_decay < 0 or config.train.clip <= 0:
        raise UsageError("train.learning_rate and train.clip must be positive, train.weight_decay not negative")
    if config.train.warmup_steps < 0:
        raise UsageError(f"train.warmup_steps must be at least 0, got {config.train.warmup_steps}")
    if config.train.precision not in PRECISIONS:
        raise unknown_name("train.precision", str(config.train.precision), PRECISIONS)


def numbers(config: DictConfig, *names: str) -> None:
    """Check that settings are finite numbers: `null`, which some others may be, is none."""
    for name in names:
        if not is_number(value := OmegaConf.select(config, name)):
            raise UsageError(f"{name} must be a number, got {value!r}")


def training_arguments(config: DictConfig) -> dict[str, Any]:
    """Arguments of `training.pretrain.pretrain` that are settings, but for its recipe."""
    train = config.train
    rate, rule = float(train.learning_rate), str(train.scale_learning_rate)
    return {
        "steps": int(train.steps),
        "learning_rate": scaled_learning_rate(rate, rule, int(train.batch_size)),
        "weight_decay": float(train.weight_decay),
        "warmup_steps": int(train.warmup_steps),
        "clip": float(train.clip),
        "precision": str(train.precision),
        "seed": int(config.seed),
        "checkpoint_every": int(train.checkpoint_every),
    }


def build_recipe(config: DictConfig) -> Recipe:
    """How the objective is optimised."""
    train = config.train
    scaled_learning_rate(1.0, str(train.scale_learning_rate), 1)  # checks the rule's name
    if train.batch_size % train.accumulate:
        raise UsageError(f"train.accumulate must divide train.batch_size={train.batch_size}, got {train.accumulate}")
    end = train.weight_decay_end
    if end is not None and not (is_number(end) and end >= 0):
        raise UsageError(f"train.weight_decay_end must be a number that is not negative, or null, got {end!r}")
    return Recipe(
        betas=tuple(train.betas or ()),
        schedule=str(train.schedule),
        weight_decay_end=None if end is None else float(end),
        accumulate=int(train.accumulate),
        layer_decay=float(train.layer_decay),
        average=float(train.average),
        compile=None if train.compile is None else str(train.compile),
    )


def expand_data(config: DictConfig, *, kinds: str) -> tuple[list[str], list[float] | None]:
    """The paths that `data` stands for, a folder of stores for all in it, and the weight of each by `weights`.

    Args:
        config: of the verb.
        kinds: what `data` may be, in words.

    Raises:
        UsageError: there is no data, or not a weight per entry.
    """
    if not config.data:
        raise UsageError(f"what to train on? write data=<{kinds}>, or data='[a,b]'")
    entries = list(config.data) if isinstance(config.data, ListConfig) else [config.data]
    given = list(config.weights) if isinstance(config.weights, ListConfig) else [config.weights]
    weights = [1.0] * len(entries) if config.weights is None else given
    if len(weights) != len(entries) or not all(map(is_number, weights)):
        raise UsageError(f"weights: expected {len(entries)} numbers, one per entry of data, got {weights}")
    paths: list[str] = []
    spread: list[float] = []
    for entry, weight in zip(entries, weights, strict=True):
        found = expand(Path(str(entry)).expanduser())
        paths += map(str, found)
        spread += [float(weight) / len(found)] * len(found)
    return paths, spread if config.weights is not None else None


def expand(path: Path) -> list[Path]:
    """The stores in a folder of stores; else the path itself."""
    if path.is_dir() and not is_store(path):
        stores = sorted(entry for entry in path.iterdir() if entry.is_dir() and is_store(entry))
        if stores:
            return stores
    return [path]


def open_shared_run(config: DictConfig, name: str, *, command: str, device: torch.device) -> tuple[RunFolder, bool]:
    """The run folder of all processes that train together, made by the first; and whether this is the first."""
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes == 1:
        return open_run(config, name, command=command), True
    path = [str(open_run(config, name, command=command).path) if state.is_main_process else ""]
    broadcast_object_list(path)
    return RunFolder(path[0]), bool(state.is_main_process)
