"""`embodied pretrain` of objectives that learn from sequences: episode stores -> a sequence encoder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from embodied.bench.plots import plot_learning_curve
from embodied.bench.pretraining import model_card
from embodied.cli.config import positive
from embodied.cli.pretrain_monitors import check_holdout
from embodied.cli.pretrain_probe import look_at_the_start
from embodied.cli.pretrain_settings import (
    build_recipe,
    expand_data,
    open_shared_run,
    training_arguments,
)
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache, resolve_device
from embodied.cli.trackers import check_tracker, open_records
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE, image_key
from embodied.core.run_folder import RunFolder, Stopwatch, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.sequence_sources import Caches, Latents, open_sequences
from embodied.datasets.loading.sequences import SequenceDataset
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import looks
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.models.sequence.sensorimotor import SensorimotorTransformer
from embodied.training.batches import ReadBatch
from embodied.training.holdout import HoldoutLoss
from embodied.training.pretrain import Monitor, pretrain
from embodied.training.pretrain_state import resume_step


def wants_sequences(config: DictConfig) -> bool:
    """Whether the objective learns from windows of episodes, not from frames."""
    return bool(getattr(hydra.utils.get_class(str(config.objective._target_)), "wants_sequences", False))


def pretrain_sequences(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the stores to the artifact."""
    positive(config, "sequence.context")
    refuse_frame_settings(config)
    check_holdout(config)
    check_tracker(config.tracker)
    recipe, device, console = build_recipe(config), resolve_device(str(config.device)), Console()
    reporter = RichReporter(console)
    with reporter.phase("data"):
        frames = open_frame_encoder(config)
        # Before anything is encoded: a network of other sizes, which checks its settings.
        build_sequence_objective(config, frames, {image_key("camera"): 1, STATE: 1, ACTION: 1})
        data = open_windows(config, frames, device=device, reporter=reporter)
    objective = build_sequence_objective(config, frames, data.sizes)
    fit_statistics(objective, data)
    command = shlex.join(["embodied", "pretrain", *overrides])
    name = f"pretrain-{str(config.objective._target_).rsplit('.', 1)[-1].lower()}-seed{config.seed}"
    run, first = open_shared_run(config, name, command=command, device=device)
    if first:
        console.print(
            f"{len(data)} windows of {', '.join(data.sizes)}; run folder [bold]{run.path}[/]", highlight=False
        )
    trained, monitors = split(config, data)
    watch, done = Stopwatch(), resume_step(run.checkpoints)
    with reporter.phase("pretrain"), open_records(run, config, done=done, first=first) as (log, _):
        if first and not done:
            look_at_the_start(monitors, objective.to(device), log)
        pretrain(
            objective,
            batches(trained, int(config.train.batch_size), seed=derive_seed(int(config.seed), "windows")),
            checkpoint_folder=run.checkpoints,
            device=device,
            log=log,
            reporter=reporter,
            recipe=recipe,
            monitors=monitors,
            **training_arguments(config),
        )
    if not first:
        return 0
    run.finish("pretrain", {}, watch.seconds)
    _finish(config, run, objective, data)
    console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    return 0


def refuse_frame_settings(config: DictConfig) -> None:
    """Settings of `embodied pretrain` that say nothing here must not look as if they did."""
    for name in ("image_size", "patch_size"):
        if config.encoder.get(name) is not None:
            raise UsageError(f"encoder.{name}: frames are encoded by sequence.image_encoder, which has its own")
    for name in ("probe", "holdout_data"):
        if config[name] is not None:
            raise UsageError(f"{name} is for objectives that learn from frames: leave it out")


def open_frame_encoder(config: DictConfig) -> nn.Module:
    """The frozen image encoder.

    Raises:
        UsageError: it reads no pictures, or learns along.
    """
    spec = str(config.sequence.image_encoder)
    encoder = load_encoder(spec, state_dim=1)  # of `state`, which is refused by what it sees
    if not looks(encoder) or getattr(encoder, "trainable", False) or isinstance(encoder, SensorimotorEncoder):
        raise UsageError(f"sequence.image_encoder={spec} is no frozen image encoder: choose default, hf:<folder>, ...")
    return encoder


def open_windows(
    config: DictConfig, frames: nn.Module, *, device: torch.device, reporter: RichReporter
) -> SequenceDataset:
    """The windows of `data`; a folder that holds several stores stands for all of them."""
    settings = config.sequence
    paths, weights = expand_data(config, kinds="episode store")
    camera = settings.camera
    return open_sequences(
        paths,
        latents=Latents(encoder=frames, fingerprint=fingerprint(frames), output=str(settings.latent)),
        caches=Caches(root=resolve_cache(config), max_bytes=cache_bytes(config), device=device, reporter=reporter),
        context=int(settings.context),
        cameras=None if camera is None else [camera] if isinstance(camera, str) else [str(name) for name in camera],
        leave_out=[str(name) for name in settings.leave_out],
        mixed_robots=bool(settings.mixed_robots),
        weights=weights,
    )


def batches(data: SequenceDataset, batch_size: int, *, seed: int) -> ReadBatch:
    """The windows of every step."""
    sampler = data.sampler(batch_size=batch_size, seed=seed)
    return lambda step: data.batch(sampler.batch(step))


def split(config: DictConfig, data: SequenceDataset) -> tuple[SequenceDataset, list[Monitor]]:
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


def build_sequence_objective(config: DictConfig, frames: nn.Module, sizes: Mapping[str, int]) -> nn.Module:
    """The objective with its fresh encoder; weights depend on the seed alone.

    Args:
        config: of the verb.
        frames: the image encoder.
        sizes: values of every key of the data.
    """
    network: dict[str, Any] = {str(key): value for key, value in config.encoder.items() if value is not None}
    network |= {
        "cameras": [key.removeprefix(IMAGE_PREFIX) for key in sizes if key.startswith(IMAGE_PREFIX)],
        "state_dim": sizes.get(STATE, 0),
        "action_dim": sizes.get(ACTION, 0),
        "context": int(config.sequence.context),
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            encoder = SensorimotorEncoder(frames=frames.cpu(), latent=str(config.sequence.latent), network=network)
            objective = hydra.utils.instantiate(config.objective, encoder=encoder)
        except (TypeError, ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
    assert isinstance(objective, nn.Module)
    return objective


def fit_statistics(objective: nn.Module, data: SequenceDataset) -> None:
    """Give the encoder mean and deviation of everything that it reads."""
    encoder = objective.encoder
    assert isinstance(encoder, SensorimotorEncoder) and isinstance(encoder.sequence, SensorimotorTransformer)
    found = data.statistics().items()
    encoder.sequence.fit({key: (torch.from_numpy(mean), torch.from_numpy(std)) for key, (mean, std) in found})


def _finish(config: DictConfig, run: RunFolder, objective: nn.Module, data: SequenceDataset) -> None:
    """Write the artifact with its card, and the loss curve."""
    metrics = read_metrics(run.path / "metrics.jsonl")
    plot_learning_curve(metrics, run.path / "plots" / "loss.png")
    encoder = objective.encoder
    assert isinstance(encoder, SensorimotorEncoder)
    card = model_card(
        objective=str(config.objective._target_),
        encoder=encoder.config(),
        command=run.command,
        config_yaml=OmegaConf.to_yaml(config),
        data=data.describe(),
        metrics=metrics,
        seconds=run.phase_seconds()["pretrain"],
    )
    save_encoder(encoder.cpu(), run.path / "encoder", card=card)
