"""Pre-train an encoder on folders of images and episode stores.

The run folder holds encoder/ (the artifact: give it to embodied train as encoder=path=<folder>), reconstructions,
the loss curve and the checkpoint to continue from. Several GPUs: accelerate launch -m embodied pretrain ...
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import hydra
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from omegaconf import DictConfig, ListConfig, OmegaConf
from rich.console import Console
from torch import nn

from embodied.bench.plots import plot_learning_curve
from embodied.bench.pretraining import draw_reconstructions, model_card
from embodied.cli.config import positive
from embodied.cli.pretrain_probe import look_at_the_start, open_probe
from embodied.cli.reporter import RichReporter
from embodied.cli.runs import open_run, run_verb
from embodied.cli.settings import cache_bytes, resolve_cache, resolve_device
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError, unknown_name
from embodied.core.run_folder import RunFolder, Stopwatch, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.frames import FrameDataset, open_frames
from embodied.datasets.store.episode_index import is_store
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.training.optimization import Recipe, scaled_learning_rate
from embodied.training.pretrain import PRECISIONS, pretrain
from embodied.training.pretrain_state import resume_step


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied pretrain`, with `-m` one run per combination of values."""
    return run_verb("pretrain", arguments, pretrain_once, debug=debug)


def pretrain_once(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the data to the artifact."""
    positive(
        config, "train.steps", "train.batch_size", "train.accumulate", "train.checkpoint_every", "encoder.image_size"
    )
    console = Console()
    device = resolve_device(str(config.device))
    if config.train.learning_rate <= 0 or config.train.weight_decay < 0 or config.train.clip <= 0:
        raise UsageError("train.learning_rate and train.clip must be positive, train.weight_decay not negative")
    if config.train.warmup_steps < 0:
        raise UsageError(f"train.warmup_steps must be at least 0, got {config.train.warmup_steps}")
    if config.train.precision not in PRECISIONS:
        raise unknown_name("train.precision", str(config.train.precision), PRECISIONS)
    # Before anything is written: both check their settings.
    recipe, objective = build_recipe(config), build_objective(config)
    reporter = RichReporter(console)
    with reporter.phase("data"):
        monitor = open_probe(config, console)
        frames = open_data(config, reporter)
    command = shlex.join(["embodied", "pretrain", *overrides])
    name = f"pretrain-{str(config.objective._target_).rsplit('.', 1)[-1].lower()}-seed{config.seed}"
    run, first = open_shared_run(config, name, command=command, device=device)
    if first:
        console.print(f"{len(frames)} frames; run folder [bold]{run.path}[/]", highlight=False)
    sampler = frames.sampler(batch_size=int(config.train.batch_size), seed=derive_seed(int(config.seed), "frames"))
    watch = Stopwatch()
    done = resume_step(run.checkpoints)
    metrics = run.metrics(keep=done or -1) if first else nullcontext(lambda record: None)
    with reporter.phase("pretrain"), metrics as log:
        if monitor is not None and first and not done:
            look_at_the_start(monitor, objective, log)
        pretrain(
            objective,
            lambda step: frames.read(sampler.batch(step)),
            steps=int(config.train.steps),
            learning_rate=scaled_learning_rate(
                float(config.train.learning_rate),
                str(config.train.scale_learning_rate),
                int(config.train.batch_size),
            ),
            weight_decay=float(config.train.weight_decay),
            warmup_steps=int(config.train.warmup_steps),
            clip=float(config.train.clip),
            precision=str(config.train.precision),
            seed=int(config.seed),
            checkpoint_folder=run.checkpoints,
            checkpoint_every=int(config.train.checkpoint_every),
            device=device,
            log=log,
            reporter=reporter,
            recipe=recipe,
            monitors=[] if monitor is None else [monitor],
        )
    if not first:
        return 0
    run.finish("pretrain", {}, watch.seconds)
    finish(config, run, objective, frames)
    console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    console.print(f"look at {run.path / 'plots'}", highlight=False)
    return 0


def open_shared_run(config: DictConfig, name: str, *, command: str, device: torch.device) -> tuple[RunFolder, bool]:
    """The run folder of all processes that train together, made by the first; and whether this is the first."""
    state = PartialState(cpu=device.type == "cpu")
    if state.num_processes == 1:
        return open_run(config, name, command=command), True
    path = [str(open_run(config, name, command=command).path) if state.is_main_process else ""]
    broadcast_object_list(path)
    return RunFolder(path[0]), bool(state.is_main_process)


def finish(config: DictConfig, run: RunFolder, objective: nn.Module, frames: FrameDataset) -> None:
    """Write the artifact with its card, the loss curve and pictures of what the objective predicts."""
    metrics = read_metrics(run.path / "metrics.jsonl")
    plot_learning_curve(metrics, run.path / "plots" / "loss.png")
    if hasattr(objective, "reconstruct"):
        draw_reconstructions(objective, frames, run.path / "plots" / "reconstructions.png", seed=int(config.seed))
    card = model_card(
        objective=str(config.objective._target_),
        encoder=objective.encoder.config(),  # type: ignore[operator, union-attr]
        command=run.command,
        config_yaml=OmegaConf.to_yaml(config),
        data=frames.describe(),
        metrics=metrics,
        seconds=run.phase_seconds()["pretrain"],
    )
    assert isinstance(objective.encoder, nn.Module)
    if hasattr(objective, "exports"):
        for name, (tensors, settings) in objective.exports().items():  # type: ignore[operator]
            save_checkpoint(run.path / f"{name}.safetensors", tensors, settings)
    save_encoder(objective.encoder.cpu(), run.path / "encoder", card=card)


def open_data(config: DictConfig, reporter: RichReporter) -> FrameDataset:
    """The frames of `data`; a folder that holds several stores stands for all of them."""
    if not config.data:
        raise UsageError("what to train on? write data=<folder of images or episode store>, or data='[a,b]'")
    entries = list(config.data) if isinstance(config.data, ListConfig) else [config.data]
    weights = list(config.weights) if config.weights is not None else [1.0] * len(entries)
    if len(weights) != len(entries):
        raise UsageError(f"weights: expected {len(entries)} numbers, one per entry of data, got {len(weights)}")
    paths: list[str] = []
    spread: list[float] = []
    for entry, weight in zip(entries, weights, strict=True):
        found = expand(Path(str(entry)).expanduser())
        paths += map(str, found)
        spread += [float(weight) / len(found)] * len(found)
    return open_frames(
        paths,
        image_size=int(config.encoder.image_size),
        cache_root=resolve_cache(config) / "frames",
        on_error=config.on_error,
        weights=spread if config.weights is not None else None,
        max_bytes=cache_bytes(config),
        reporter=reporter,
    )


def expand(path: Path) -> list[Path]:
    """The stores in a folder of stores; else the path itself."""
    if path.is_dir() and not is_store(path):
        stores = sorted(entry for entry in path.iterdir() if entry.is_dir() and is_store(entry))
        if stores:
            return stores
    return [path]


def build_recipe(config: DictConfig) -> Recipe:
    """How the objective is optimised."""
    train = config.train
    scaled_learning_rate(1.0, str(train.scale_learning_rate), 1)  # checks the rule's name
    if train.batch_size % train.accumulate:
        raise UsageError(f"train.accumulate must divide train.batch_size={train.batch_size}, got {train.accumulate}")
    if train.weight_decay_end is not None and train.weight_decay_end < 0:
        raise UsageError(f"train.weight_decay_end must not be negative, got {train.weight_decay_end}")
    return Recipe(
        betas=tuple(train.betas),
        schedule=str(train.schedule),
        weight_decay_end=None if train.weight_decay_end is None else float(train.weight_decay_end),
        accumulate=int(train.accumulate),
        layer_decay=float(train.layer_decay),
        average=float(train.average),
        compile=None if train.compile is None else str(train.compile),
    )


def build_objective(config: DictConfig) -> nn.Module:
    """The objective with its fresh encoder; weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            encoder = ViTEncoder(**{str(key): value for key, value in config.encoder.items()})
            return hydra.utils.instantiate(config.objective, encoder=encoder)
        except (ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
