"""`embodied pretrain` of objectives that learn from sequences: episode stores -> a sequence encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import hydra
import torch
from omegaconf import DictConfig
from torch import nn

from embodied.cli.config import positive
from embodied.cli.pretrain_settings import expand_data
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache
from embodied.cli.targets import objective_class
from embodied.cli.window_training import batches as batches
from embodied.cli.window_training import card_of, open_tools, train_on_windows
from embodied.cli.window_training import refuse_frame_settings as refuse_frame_settings
from embodied.cli.window_training import split as split
from embodied.core.errors import UsageError
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE, image_key
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.sequence_sources import Caches, Latents, open_sequences
from embodied.datasets.loading.sequences import SequenceDataset
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.load import load_encoder
from embodied.encoders.modality import looks
from embodied.encoders.sensorimotor import SensorimotorEncoder
from embodied.models.sequence.sensorimotor import SensorimotorTransformer


def wants_sequences(config: DictConfig) -> bool:
    """Whether the objective learns from windows of episodes, not from frames."""
    return bool(getattr(objective_class(config), "wants_sequences", False))


def pretrain_sequences(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the stores to the artifact."""
    positive(config, "sequence.context")
    tools = open_tools(config, reader="sequence.image_encoder")
    with tools.reporter.phase("data"):
        frames = open_frame_encoder(config)
        # Before anything is encoded: a network of other sizes, which checks its settings.
        build_sequence_objective(config, frames, {image_key("camera"): 1, STATE: 1, ACTION: 1})
        data = open_windows(config, frames, device=tools.device, reporter=tools.reporter)
    objective = build_sequence_objective(config, frames, data.sizes)
    fit_statistics(objective, data)
    told = f"{len(data)} windows of {', '.join(data.sizes)}"
    run = train_on_windows(config, overrides, objective, data, tools, told=told)
    if run is None:
        return 0
    encoder = objective.encoder
    assert isinstance(encoder, SensorimotorEncoder)
    save_encoder(encoder.cpu(), run.path / "encoder", card=card_of(config, run, encoder.config(), data))
    tools.console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    return 0


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
