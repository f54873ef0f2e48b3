"""`embodied pretrain` of objectives that learn from many embodiments: a manifest -> a trunk and an encoder for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import safetensors.torch
import torch
from omegaconf import DictConfig
from torch import nn

from embodied.cli.config import positive
from embodied.cli.pretrain_gr1 import Words, read_words
from embodied.cli.pretrain_sequence import open_frame_encoder
from embodied.cli.pretrain_settings import expand, expand_data
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache
from embodied.cli.targets import objective_class
from embodied.cli.window_training import card_of, open_tools, train_on_windows
from embodied.core.errors import UsageError
from embodied.core.files import atomic_path
from embodied.core.protocols import ACTION, STATE
from embodied.core.run_folder import RunFolder
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
from embodied.policies.assembly import assemble, build_head
from embodied.policies.head_kinds import head_kinds

REGRESSION, TRUNK = "regression", "trunk.safetensors"
STEM_SETTINGS = ("tokens", "hidden", "dropout")  # of `encoder`, the others are the trunk's


def wants_mixture(config: DictConfig) -> bool:
    """Whether the objective learns from many embodiments at once."""
    return bool(getattr(objective_class(config), "wants_mixture", False))


def pretrain_mixture(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from the manifest to the artifacts."""
    positive(config, "sequence.context", "sequence.chunk")
    tools = open_tools(config, reader="sequence.image_encoder")
    mixing_weights([1], config.sequence.mixing, temperature=float(config.sequence.temperature))  # checks them
    with tools.reporter.phase("data"):
        entries = read_entries(config)
        frames = open_frame_encoder(config)
        example = {"camera": Embodiment(cameras=("camera",), state_dim=1, action_dim=1)}
        build_mixture_objective(config, example, {"data": "camera"}, latent_dim=1)  # before anything is encoded
        words = read_words(config, [path for entry in entries for path in entry.paths])
        data = open_data(config, entries, frames, words, device=tools.device, reporter=tools.reporter)
    datasets = dict(zip(data.names, data.owners, strict=True))
    sizes = {"latent_dim": data.frame_shape[-1], "text_dim": text_dim(words)}
    objective = build_mixture_objective(config, data.embodiments, datasets, **sizes)
    fit_statistics(objective, data, entries)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in zip(data.names, data.shares, strict=True))
    run = train_on_windows(config, overrides, objective, data, tools, told=f"{len(data)} windows, drawn {shares}")
    if run is None:
        return 0
    finish(config, run, objective.cpu(), frames.cpu(), data, words)
    for embodiment in data.embodiments:
        tools.console.print(f"encoder [bold]{run.path / 'encoders' / embodiment}[/]", highlight=False)
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
    words: Words | None,
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
        instructions=None if words is None else words.vectors,
    )


def text_dim(words: Words | None) -> int:
    """Values of an instruction's embedding, 0 where none are read."""
    return 0 if words is None else len(next(iter(words.vectors.values())))


def build_mixture_objective(
    config: DictConfig,
    embodiments: Mapping[str, Embodiment],
    datasets: Mapping[str, str],
    *,
    latent_dim: int,
    text_dim: int = 0,
) -> HPT:
    """The objective with fresh stems and heads, and a trunk that is fresh or loaded; weights depend on the seed alone.

    Args:
        config: of the verb.
        embodiments: by name.
        datasets: the embodiment of each.
        latent_dim: V of the image encoder.
        text_dim: of the text encoder; 0: no instructions are read.

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
                    text_dim=text_dim,
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
    if name not in head_kinds():
        raise UsageError(f"sequence.head must be {REGRESSION} or one of {', '.join(head_kinds())}, got {name!r}")
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


def finish(
    config: DictConfig, run: RunFolder, objective: HPT, frames: nn.Module, data: MixtureDataset, words: Words | None
) -> None:
    """Write the trunk by its published names, and an artifact for every embodiment."""
    trunk = {name: tensor.contiguous() for name, tensor in objective.encoder.trunk.published().items()}
    with atomic_path(run.path / TRUNK) as temporary:
        safetensors.torch.save_file(trunk, temporary)
    for name in data.embodiments:
        network = objective.encoder.network(name)
        encoder = HPTEncoder(
            frames=frames,
            latent=str(config.sequence.latent),
            network=network.config(),
            text=None if words is None else words.text,
        )
        encoder.sequence.load_state_dict(network.state_dict())
        card = card_of(config, run, encoder.config(), data)
        save_encoder(encoder, run.path / "encoders" / name, card=card)
