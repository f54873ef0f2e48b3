"""Pre-train an encoder on images, videos and episode stores.

The run folder holds encoder/ (the artifact: give it to embodied train as encoder=path=<folder>), reconstructions,
the loss curve and the checkpoint to continue from. Several GPUs: accelerate launch -m embodied pretrain ...
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.markup import escape
from torch import nn

from embodied.bench.plots import plot_learning_curve
from embodied.bench.pretraining import PANEL, draw_reconstructions, model_card
from embodied.cli.config import positive
from embodied.cli.pretrain_curation import check_curation, open_curation
from embodied.cli.pretrain_gr1 import pretrain_gr1
from embodied.cli.pretrain_mixture import pretrain_mixture, wants_mixture
from embodied.cli.pretrain_monitors import check_holdout, open_holdout, open_panels
from embodied.cli.pretrain_probe import look_at_the_start, open_probe
from embodied.cli.pretrain_sequence import pretrain_sequences, wants_sequences
from embodied.cli.pretrain_settings import (
    build_recipe,
    check_training,
    expand_data,
    open_shared_run,
    training_arguments,
)
from embodied.cli.pretrain_video import pretrain_video, wants_video
from embodied.cli.reporter import RichReporter, open_console
from embodied.cli.runs import run_verb
from embodied.cli.settings import cache_bytes, resolve_cache, resolve_device
from embodied.cli.targets import objective_class
from embodied.cli.trackers import check_tracker, open_records
from embodied.core.checkpoint import save_checkpoint
from embodied.core.errors import UsageError
from embodied.core.run_folder import RunFolder, Stopwatch, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.frames import Atoms, FrameDataset, open_frames
from embodied.encoders.artifact import save_encoder
from embodied.encoders.vit import ViTEncoder
from embodied.training.batches import Batch, batches_for
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import resume_step


def main(arguments: Sequence[str], *, debug: bool) -> int:
    """`embodied pretrain`, with `-m` one run per combination of values."""
    return run_verb("pretrain", arguments, pretrain_once, debug=debug)


def pretrain_once(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the data to the artifact."""
    check_training(config)
    if wants_mixture(config):
        return pretrain_mixture(config, overrides)
    if wants_sequences(config):
        return pretrain_sequences(config, overrides)
    if (clips := wants_video(config)) is not None:
        return (pretrain_video if clips == "codes" else pretrain_gr1)(config, overrides)
    positive(config, "encoder.image_size")
    console = open_console()
    device = resolve_device(str(config.device))
    check_holdout(config)
    check_curation(config)
    check_tracker(config.tracker)
    # Before anything is written: both check their settings.
    recipe, objective = build_recipe(config), build_objective(config)
    reporter = RichReporter(console)
    with reporter.phase("data"):
        probe = open_probe(config, console)
        frames = open_data(config, reporter)
        holdout = open_holdout(config, objective, frames, lambda other: open_data(other, reporter))
        curation = open_curation(config, frames, build=build_objective, device=device, reporter=reporter)
        batches = batches_for(
            objective,
            frames,
            batch_size=int(config.train.batch_size),
            seed=derive_seed(int(config.seed), "frames"),
            only=holdout.trained,
            shares=curation.shares,
        )
    command = shlex.join(["embodied", "pretrain", *overrides])
    name = f"pretrain-{str(config.objective._target_).rsplit('.', 1)[-1].lower()}-seed{config.seed}"
    run, first = open_shared_run(config, name, command=command, device=device)
    if first:
        kept = "" if holdout.trained is None else f", {int((~holdout.trained).sum())} of them held out"
        console.print(f"{len(frames)} frames{kept}; run folder [bold]{run.path}[/]", highlight=False)
        if curation.told:
            console.print(escape(curation.told), highlight=False, soft_wrap=True)
    watch = Stopwatch()
    done = resume_step(run.checkpoints)
    looks = [monitor for monitor in (probe, holdout.monitor) if monitor is not None]
    with reporter.phase("pretrain"), open_records(run, config, done=done, first=first) as (log, show):
        if first and not done:
            look_at_the_start(looks, objective.to(device), log)
        pretrain(
            objective,
            batches,
            checkpoint_folder=run.checkpoints,
            device=device,
            log=log,
            reporter=reporter,
            recipe=recipe,
            monitors=[*looks, *open_panels(config, objective, holdout, run.path / "plots", show)],
            **training_arguments(config),
        )
    if not first:
        return 0
    run.finish("pretrain", {}, watch.seconds)
    finish(config, run, objective.eval(), frames, holdout.pictures)
    console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    console.print(f"look at {run.path / 'plots'}", highlight=False)
    return 0


def finish(config: DictConfig, run: RunFolder, objective: nn.Module, frames: FrameDataset, pictures: Batch) -> None:
    """Write the artifact with its card, the loss curve and pictures of what the objective predicts."""
    metrics = read_metrics(run.path / "metrics.jsonl")
    plot_learning_curve(metrics, run.path / "plots" / "loss.png")
    if hasattr(objective, "reconstruct"):
        draw_reconstructions(objective, pictures, run.path / "plots" / f"{PANEL}.png", seed=int(config.seed))
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
    if hasattr(objective, "artifacts"):
        for name, further in objective.artifacts().items():  # type: ignore[operator]
            save_encoder(further, run.path / name, card=card)
    save_encoder(objective.encoder.cpu(), run.path / "encoder", card=card)


def open_data(config: DictConfig, reporter: RichReporter) -> FrameDataset:
    """The frames of `data`; a folder that holds several stores stands for all of them.

    Raises:
        UsageError: a setting makes no sense.
        UserError: a source is missing, empty or damaged.
    """
    paths, weights = expand_data(config, kinds="folder of images or videos, episode store, shards or visual_atoms")
    positive(config, "visual_atoms.classes", "visual_atoms.frames")
    return open_frames(
        paths,
        image_size=int(config.encoder.image_size),
        cache_root=resolve_cache(config) / "frames",
        on_error=config.on_error,
        weights=weights,
        max_bytes=cache_bytes(config),
        reporter=reporter,
        video_fps=config.video_fps,
        atoms=Atoms(**{str(key): int(value) for key, value in config.visual_atoms.items()}),
    )


def build_objective(config: DictConfig) -> nn.Module:
    """The objective with its fresh encoder; weights depend on the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            # Most train a vision transformer; a method may name another network by `encoder.*`.
            method = objective_class(config)
            make = getattr(method, "make_image_encoder", None)
            settings = {str(key): value for key, value in config.encoder.items()}
            encoder = ViTEncoder(**settings) if make is None else make(settings)
            return hydra.utils.instantiate(config.objective, encoder=encoder)
        except (ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
