"""What pre-trainings on windows of episodes share, whatever a window holds: the run, its loop, its card."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from embodied.bench.plots import plot_learning_curve
from embodied.bench.pretraining import model_card
from embodied.cli.pretrain_monitors import check_holdout
from embodied.cli.pretrain_probe import look_at_the_start
from embodied.cli.pretrain_settings import build_recipe, open_shared_run, training_arguments
from embodied.cli.reporter import RichReporter, open_console
from embodied.cli.settings import resolve_device
from embodied.cli.trackers import check_tracker, open_records
from embodied.core.errors import UsageError
from embodied.core.run_folder import RunFolder, Stopwatch, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.sampling import EpochSampler
from embodied.training.batches import ReadBatch
from embodied.training.holdout import HoldoutLoss
from embodied.training.optimization import Recipe
from embodied.training.pretrain import Monitor, pretrain
from embodied.training.pretrain_state import resume_step

Show = Callable[[int, Path], None]  # a picture of a step, to trackers


class Windows(Protocol):
    """Windows of episodes: a `SequenceDataset`, a `ClipDataset`, ..."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Mapping[str, np.ndarray]:
        """Arrays [B, ...] of the windows at indices int64 [B]."""
        ...

    def sampler(self, *, batch_size: int, seed: int) -> EpochSampler:
        """Which windows each step takes."""
        ...

    def hold_out(self, share: float, *, seed: int) -> tuple[Windows, Windows]:
        """Those to train on, and those of episodes that are kept from it."""
        ...

    def describe(self) -> list[dict[str, Any]]:
        """Their sources, for a model card."""
        ...


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a pre-training works with, all of it checked.

    Attributes:
        recipe: of the optimisation.
        device: of the training.
        console: where it is told.
    """

    recipe: Recipe
    device: torch.device
    console: Console = field(default_factory=open_console)

    @property
    def reporter(self) -> RichReporter:
        """Shows phases and progress."""
        return RichReporter(self.console)


def open_tools(config: DictConfig, *, reader: str) -> Tools:
    """The tools by the settings of `embodied pretrain`.

    Args:
        config: of the verb.
        reader: the setting that names what reads frames.

    Raises:
        UsageError: a setting makes no sense.
    """
    refuse_frame_settings(config, reader=reader)
    check_holdout(config)
    check_tracker(config.tracker)
    return Tools(recipe=build_recipe(config), device=resolve_device(str(config.device)))


def refuse_frame_settings(config: DictConfig, *, reader: str = "sequence.image_encoder") -> None:
    """Settings of `embodied pretrain` that say nothing here must not look as if they did."""
    for name in ("image_size", "patch_size"):
        if config.encoder.get(name) is not None:
            raise UsageError(f"encoder.{name}: frames are encoded by {reader}, which has its own")
    for name in ("probe", "holdout_data", "curate_entropy", "curate_loss"):
        if config[name] is not None:
            raise UsageError(f"{name} is for objectives that learn from frames: leave it out")


def train_on_windows(
    config: DictConfig,
    overrides: Sequence[str],
    objective: nn.Module,
    data: Windows,
    tools: Tools,
    *,
    told: str,
    begin: Callable[[RunFolder, bool], None] = lambda run, first: None,
    panels: Callable[[RunFolder, Show], Sequence[Monitor]] = lambda run, show: (),
) -> RunFolder | None:
    """Train an objective on windows, or go on with it.

    Args:
        config: of the verb.
        overrides: of the command.
        objective: fresh, with its statistics.
        data: all windows, held out or not.
        tools: see `open_tools`.
        told: one line of what is trained on.
        begin: is called with the run folder, and whether this process is the first.
        panels: monitors beside that of held-out windows, by the run folder.

    Returns:
        The run folder of a training that has ended, to write its artifacts into; None in all processes but the first.
    """
    command = shlex.join(["embodied", "pretrain", *overrides])
    name = f"pretrain-{str(config.objective._target_).rsplit('.', 1)[-1].lower()}-seed{config.seed}"
    run, first = open_shared_run(config, name, command=command, device=tools.device)
    begin(run, first)
    if first:
        tools.console.print(f"{told}; run folder [bold]{run.path}[/]", highlight=False)
    trained, looks = split(config, data)
    watch, done, reporter = Stopwatch(), resume_step(run.checkpoints), tools.reporter
    with reporter.phase("pretrain"), open_records(run, config, done=done, first=first) as (log, show):
        if first and not done:
            look_at_the_start(looks, objective.to(tools.device), log)
        pretrain(
            objective,
            batches(trained, int(config.train.batch_size), seed=derive_seed(int(config.seed), "windows")),
            checkpoint_folder=run.checkpoints,
            device=tools.device,
            log=log,
            reporter=reporter,
            recipe=tools.recipe,
            monitors=[*looks, *panels(run, show)],
            **training_arguments(config),
        )
    if not first:
        return None
    run.finish("pretrain", {}, watch.seconds)
    plot_learning_curve(read_metrics(run.path / "metrics.jsonl"), run.path / "plots" / "loss.png")
    return run


def card_of(config: DictConfig, run: RunFolder, encoder: Mapping[str, Any], data: Windows) -> str:
    """The model card of what came of a run; `encoder`: its `config()`."""
    return model_card(
        objective=str(config.objective._target_),
        encoder=dict(encoder),
        command=run.command,
        config_yaml=OmegaConf.to_yaml(config),
        data=data.describe(),
        metrics=read_metrics(run.path / "metrics.jsonl"),
        seconds=run.phase_seconds()["pretrain"],
    )


def batches(data: Windows, batch_size: int, *, seed: int) -> ReadBatch:
    """The windows of every step."""
    sampler = data.sampler(batch_size=batch_size, seed=seed)
    return lambda step: data.batch(sampler.batch(step))


def split(config: DictConfig, data: Windows) -> tuple[Windows, list[Monitor]]:
    """What is trained on, and what looks at the windows that are held out, if any are."""
    if not config.holdout:
        return data, []
    seed = derive_seed(int(config.seed), "holdout")
    trained, held = data.hold_out(float(config.holdout), seed=seed)
    count = min(int(config.holdout_frames), len(held))
    size = min(count, int(config.train.batch_size) // int(config.train.accumulate))
    monitor = HoldoutLoss(
        batches(held, size, seed=seed),
        batches=-(-count // size),
        every=int(config.holdout_every),
        seed=seed,
        reduced=config.train.precision == "bf16",
    )
    return trained, [monitor]
