"""`embodied pretrain` of objectives that learn from many embodiments: a manifest -> a trunk and an encoder for each."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import safetensors.torch
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from torch import nn

from embodied.bench.plots import plot_learning_curve
from embodied.bench.pretraining import model_card
from embodied.cli.config import positive
from embodied.cli.pretrain_monitors import check_holdout
from embodied.cli.pretrain_probe import look_at_the_start
from embodied.cli.pretrain_sequence import batches, open_frame_encoder, refuse_frame_settings, split
from embodied.cli.pretrain_settings import build_recipe, expand, expand_data, open_shared_run, training_arguments
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache, resolve_device
from embodied.cli.trackers import check_tracker, open_records
from embodied.core.errors import UsageError
from embodied.core.files import atomic_path
from embodied.core.protocols import ACTION, STATE
from embodied.core.run_folder import RunFolder, Stopwatch, read_metrics
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.mixture_manifest import SUFFIXES, DatasetEntry, read_manifest
from embodied.datasets.loading.mixture_sources import open_mixture
from embodied.datasets.loading.mixture_statistics import image_statistics, vector_statistics
from embodied.datasets.loading.mixtures import Embodiment, MixtureDataset, mixing_weights
from embodied.datasets.loading.sequence_sources import Caches, Latents
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.checkpoint_file import read_tensors
from embodied.encoders.hpt import HPTEncoder
from embodied.models.sequence.hpt import IMAGE, PROPRIOCEPTION
from embodied.models.sequence.hpt_head import RegressionHead
from embodied.models.sequence.hpt_trunk import HPTTrunk
from embodied.objectives.sensorimotor.hpt import HPT, Embodiments
from embodied.policies.assembly import HEADS, assemble, build_head
from embodied.training.pretrain import pretrain
from embodied.training.pretrain_state import resume_step

REGRESSION, TRUNK = "regression", "trunk.safetensors"
STEM_SETTINGS = ("tokens", "hidden", "dropout")  # of `encoder`, the others are the trunk's


def wants_mixture(config: DictConfig) -> bool:
    """Whether the objective learns from many embodiments at once."""
    return bool(getattr(hydra.utils.get_class(str(config.objective._target_)), "wants_mixture", False))


def pretrain_mixture(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the manifest to the artifacts."""
    positive(config, "sequence.context", "sequence.chunk")
    refuse_frame_settings(config)
    check_holdout(config)
    check_tracker(config.tracker)
    mixing_weights([1], config.sequence.mixing, temperature=float(config.sequence.temperature))  # checks them
    recipe, device, console = build_recipe(config), resolve_device(str(config.device)), Console()
    reporter = RichReporter(console)
    with reporter.phase("data"):
        entries = read_entries(config)
        frames = open_frame_encoder(config)
        example = {"camera": Embodiment(cameras=("camera",), state_dim=1, action_dim=1)}
        build_mixture_objective(config, example, {"data": "camera"}, latent_dim=1)  # before anything is encoded
        data = open_data(config, entries, frames, device=device, reporter=reporter)
    datasets = dict(zip(data.names, data.owners, strict=True))
    objective = build_mixture_objective(config, data.embodiments, datasets, latent_dim=data.frame_shape[-1])
    fit_statistics(objective, data, entries)
    command = shlex.join(["embodied", "pretrain", *overrides])
    name = f"pretrain-{str(config.objective._target_).rsplit('.', 1)[-1].lower()}-seed{config.seed}"
    run, first = open_shared_run(config, name, command=command, device=device)
    if first:
        shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(data.names, data.shares, strict=True))
        console.print(f"{len(data)} windows, drawn {shares}; run folder [bold]{run.path}[/]", highlight=False)
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
    finish(config, run, objective.cpu(), frames.cpu(), data)
    for embodiment in data.embodiments:
        console.print(f"encoder [bold]{run.path / 'encoders' / embodiment}[/]", highlight=False)
    return 0


def read_entries(config: DictConfig) -> list[DatasetEntry]:
    """The datasets of `data`: of a manifest, or one for each store or folder of stores.

    Raises:
        UsageError: there is no data, or the manifest makes no sense.
        UserError: the manifest cannot be read.
    """
    if isinstance(config.data, str) and config.data.endswith(SUFFIXES):
        if config.weights is not None:
            raise UsageError("weights: a manifest has the weight of each dataset itself")
        entries = read_manifest(Path(config.data).expanduser())
        return [
            DatasetEntry(
                **{**vars(entry), "paths": tuple(str(each) for path in entry.paths for each in expand(Path(path)))}
            )
            for entry in entries
        ]
    paths, weights = expand_data(config, kinds="manifest.yaml, or episode store")
    return [
        DatasetEntry(
            name=Path(path).name,
            paths=(path,),
            embodiment=Path(path).name,
            weight=1.0 if weights is None else weights[place],
        )
        for place, path in enumerate(paths)
    ]


def open_data(
    config: DictConfig,
    entries: Sequence[DatasetEntry],
    frames: nn.Module,
    *,
    device: torch.device,
    reporter: RichReporter,
) -> MixtureDataset:
    """The windows of all datasets."""
    settings = config.sequence
    return open_mixture(
        entries,
        latents=Latents(encoder=frames, fingerprint=fingerprint(frames), output=str(settings.latent)),
        caches=Caches(root=resolve_cache(config), max_bytes=cache_bytes(config), device=device, reporter=reporter),
        context=int(settings.context),
        chunk=int(settings.chunk),
        mixing=settings.mixing,
        temperature=float(settings.temperature),
    )


def build_mixture_objective(
    config: DictConfig, embodiments: Mapping[str, Embodiment], datasets: Mapping[str, str], *, latent_dim: int
) -> HPT:
    """The objective with fresh stems and heads, and a trunk that is fresh or loaded; weights depend on the seed alone.

    Args:
        config: of the verb.
        embodiments: by name.
        datasets: the embodiment of each.
        latent_dim: V of the image encoder.

    Raises:
        UsageError: a setting makes no sense.
        UserError: the file of the trunk cannot be read or does not fit.
    """
    settings: dict[str, Any] = {str(key): value for key, value in config.encoder.items() if value is not None}
    settings.setdefault("size", None)
    stems = {name: settings.pop(name) for name in STEM_SETTINGS if name in settings}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            trunk = HPTTrunk(**settings)
            if config.sequence.trunk is not None:
                path = Path(str(config.sequence.trunk)).expanduser()
                trunk.load_published(read_tensors(path), source=str(path))
            encoder = Embodiments(trunk, frozen=bool(config.sequence.freeze_trunk))
            heads = {}
            for name, body in embodiments.items():
                encoder.add(
                    name,
                    cameras=body.cameras,
                    latent_dim=latent_dim,
                    state_dim=body.state_dim,
                    context=int(config.sequence.context),
                    **stems,
                )
                heads[name] = make_head(config, width=trunk.width, action_dim=body.action_dim)
            objective = hydra.utils.instantiate(config.objective, encoder=encoder, heads=heads, datasets=dict(datasets))
        except UsageError:
            raise
        except (TypeError, ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
    assert isinstance(objective, HPT)
    return objective


def make_head(config: DictConfig, *, width: int, action_dim: int) -> nn.Module:
    """The authors' regression, or one of the controllers' heads on the trunk's feature."""
    name, chunk = str(config.sequence.head), int(config.sequence.chunk)
    if name == REGRESSION:
        return RegressionHead(feature_dim=width, action_dim=action_dim, horizon=chunk)
    if name not in HEADS:
        raise UsageError(f"sequence.head must be {REGRESSION} or one of {', '.join(HEADS)}, got {name!r}")
    made = assemble(name, neck="sequence", history=1, chunk=chunk)
    options = {"batch_norm": False} if made.head == "mlp" else {}  # a batch may hold a single window of a dataset
    return build_head(made, feature_dim=width, moments=1, action_dim=action_dim, hidden=(256, 128), options=options)


def fit_statistics(objective: HPT, data: MixtureDataset, entries: Sequence[DatasetEntry]) -> None:
    """Give stems and heads the scale of everything that they read and predict."""
    states = vector_statistics(data, STATE, {entry.embodiment: entry.normalize for entry in entries})
    images = image_statistics(data)
    bounded = {name: "limits" if head.bounded else "zscore" for name, head in objective.heads.items()}
    actions = vector_statistics(data, ACTION, bounded)
    for name in data.embodiments:
        found = {PROPRIOCEPTION: states.get(name), IMAGE: images.get(name)}
        objective.encoder.of(name).fit({kind: _tensors(pair) for kind, pair in found.items() if pair is not None})
    objective.fit_actions({name: _tensors(pair) for name, pair in actions.items()})


def _tensors(pair: tuple[Any, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def finish(config: DictConfig, run: RunFolder, objective: HPT, frames: nn.Module, data: MixtureDataset) -> None:
    """Write the trunk by its published names, an artifact for every embodiment, and the loss curve."""
    metrics = read_metrics(run.path / "metrics.jsonl")
    plot_learning_curve(metrics, run.path / "plots" / "loss.png")
    trunk = {name: tensor.contiguous() for name, tensor in objective.encoder.trunk.published().items()}
    with atomic_path(run.path / TRUNK) as temporary:
        safetensors.torch.save_file(trunk, temporary)
    for name in data.embodiments:
        network = objective.encoder.network(name)
        encoder = HPTEncoder(frames=frames, latent=str(config.sequence.latent), network=network.config())
        encoder.sequence.load_state_dict(network.state_dict())
        card = model_card(
            objective=str(config.objective._target_),
            encoder=encoder.config(),
            command=run.command,
            config_yaml=OmegaConf.to_yaml(config),
            data=data.describe(),
            metrics=metrics,
            seconds=run.phase_seconds()["pretrain"],
        )
        save_encoder(encoder, run.path / "encoders" / name, card=card)
