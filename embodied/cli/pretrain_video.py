"""`embodied pretrain` of models of videos: clips of a tokenizer's codes -> a sequence encoder that can predict."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
import numpy as np
import torch
from omegaconf import DictConfig
from torch import nn

from embodied.bench.clip_panels import ClipPanels
from embodied.cli.config import positive
from embodied.cli.pretrain_settings import expand_data
from embodied.cli.reporter import RichReporter
from embodied.cli.settings import cache_bytes, resolve_cache
from embodied.cli.targets import objective_class
from embodied.cli.window_training import Show, card_of, open_tools, train_on_windows
from embodied.core.errors import UsageError, UserError
from embodied.core.protocols import ACTION, IMAGE_PREFIX, STATE
from embodied.core.run_folder import RunFolder
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.clip_sources import Codes, open_clips
from embodied.datasets.loading.clips import ClipDataset
from embodied.datasets.loading.sequence_sources import Caches, open_store
from embodied.datasets.store.episode_index import is_store
from embodied.datasets.store.provenance import provenances
from embodied.encoders.artifact import fingerprint, save_encoder
from embodied.encoders.tokenizer import FrameTokenizer, load_frame_tokenizer, require_tokenizer
from embodied.training.pretrain import Monitor

PICTURES = 3  # clips in a panel
KINDS = "episode store, video or folder of videos"


def wants_video(config: DictConfig) -> str | None:
    """`codes` or `frames` where the objective learns from clips of videos; else None."""
    return getattr(objective_class(config), "wants_video", None)


def pretrain_video(config: DictConfig, overrides: Sequence[str]) -> int:
    """One pre-training, from stores and videos to the artifact."""
    positive(config, "video.frames", "video.stride")
    tools = open_tools(config, reader="video.tokenizer")
    with tools.reporter.phase("data"):
        tokenizer = load_frame_tokenizer(str(config.video.tokenizer))
        # Before anything is encoded: a network of other sizes, which checks its settings.
        build_video_objective(config, tokenizer, {ACTION: 1, STATE: 1})
        codes = Codes(tokenizer=tokenizer, fingerprint=fingerprint(tokenizer))
        data = open_data(config, codes, device=tools.device, reporter=tools.reporter)
    objective = build_video_objective(config, tokenizer, data.sizes, camera=camera_of(data))
    if getattr(getattr(objective, "network", None), "sizes", {}).get(ACTION):
        note_noise(expand_data(config, kinds=KINDS)[0], tools.reporter)
    fit_statistics(objective, data)

    def begin(run: RunFolder, first: bool) -> None:
        require_same(run, data, tokenizer)
        if first:
            run.finish("data", {"tokenizer": data.tokenizer, "clips": data.fingerprint()}, 0.0)

    run = train_on_windows(
        config,
        overrides,
        objective,
        data,
        tools,
        told=summary(data, tokenizer),
        begin=begin,
        panels=lambda run, show: open_panels(config, objective, data, run.path / "plots", show),
    )
    if run is None:
        return 0
    encoder: Any = objective.encoder
    spans = f"{data.frames} frames" if data.stride == 1 else f"{data.frames} frames, {data.stride} apart"
    card = card_of(config, run, encoder.config(), data)
    card += f"\n## Codes\n\nClips of {spans}, of the tokenizer `{data.tokenizer}`, which is part of this artifact.\n"
    save_encoder(encoder.cpu(), run.path / "encoder", card=card)
    tools.console.print(f"encoder [bold]{run.path / 'encoder'}[/]", highlight=False)
    if hasattr(objective, "predict"):
        tools.console.print(f"see what it predicts: embodied predict run={run.path}", highlight=False)
    return 0


def open_data(config: DictConfig, codes: Codes, *, device: torch.device, reporter: RichReporter) -> ClipDataset:
    """The clips of `data`; a folder that holds several stores stands for all of them."""
    settings = config.video
    paths, weights = expand_data(config, kinds=KINDS)
    camera = settings.camera
    return open_clips(
        paths,
        codes=codes,
        caches=Caches(root=resolve_cache(config), max_bytes=cache_bytes(config), device=device, reporter=reporter),
        frames=int(settings.frames),
        stride=int(settings.stride),
        cameras=None if camera is None else [camera] if isinstance(camera, str) else [str(name) for name in camera],
        leave_out=[str(name) for name in settings.leave_out],
        mixed_robots=bool(settings.mixed_robots),
        weights=weights,
        video_fps=config.video_fps,
    )


def build_video_objective(
    config: DictConfig, tokenizer: FrameTokenizer, sizes: Mapping[str, int], *, camera: str | None = None
) -> nn.Module:
    """The objective with its fresh encoder; weights depend on the seed alone.

    Args:
        config: of the verb.
        tokenizer: of the frames.
        sizes: values per step of `action` and `observation.state`, 0 where there are none.
        camera: the name of the view, if all clips are of one.
    """
    kind: Any = objective_class(config)
    options: dict[str, Any] = {
        "tokenizer": tokenizer.cpu(),
        "network": {str(key): value for key, value in config.encoder.items() if value is not None},
        "sizes": {**sizes, "steps": int(config.video.frames)},
    }
    if camera is not None and "camera" in inspect.signature(kind.make_encoder).parameters:
        options["camera"] = camera
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(int(config.seed), "objective"))
        try:
            objective = hydra.utils.instantiate(config.objective, encoder=kind.make_encoder(**options))
        except (TypeError, ValueError, hydra.errors.InstantiationException) as error:
            reason = error.__cause__ or error
            raise UsageError(f"objective or encoder: {str(reason).splitlines()[0]}") from error
    assert isinstance(objective, nn.Module)
    return objective


def camera_of(data: ClipDataset) -> str | None:
    """The view of all clips of stores, where it is one."""
    views = {source.name.rsplit("/", 1)[-1] for source in data.sources if source.name.rsplit("/", 1)[-1] != source.name}
    names = {view.removeprefix(IMAGE_PREFIX) for view in views if view.startswith(IMAGE_PREFIX)}
    return names.pop() if len(names) == 1 else None


def fit_statistics(objective: nn.Module, data: ClipDataset) -> None:
    """Give the network mean and deviation of actions and states, if it asks for any."""
    network: Any = getattr(objective.encoder, "sequence", None)
    if hasattr(network, "fit"):
        found = data.statistics().items()
        network.fit({key: (torch.from_numpy(mean), torch.from_numpy(std)) for key, (mean, std) in found})


def note_noise(paths: Sequence[str], reporter: RichReporter) -> None:
    """Say which stores hold other actions than were executed: a model of what actions do learns from them wrongly."""
    for path in paths:
        if not is_store(Path(path).expanduser()):
            continue
        made = provenances(open_store(path).provenance, "collect")
        if noise := max((float(part.get("noise") or 0) for part in made), default=0.0):
            reporter.note(
                f"{path} was collected with collect.noise={noise:g}: its actions are those that the expert wanted, not "
                "those that were executed, so the model learns that actions do less than they do. For planning collect "
                "with collect.expert=mixed collect.only_successes=false"
            )


def require_same(run: RunFolder, data: ClipDataset, tokenizer: nn.Module) -> None:
    """A run that goes on must see the codes and clips that it began with.

    Raises:
        UserError: the tokenizer or the data have changed.
    """
    before = run.result("data")
    if before is None:
        return
    require_tokenizer(tokenizer, str(before["tokenizer"]), what=f"{run.path}")
    if before["clips"] != data.fingerprint():
        raise UserError(
            f"the data of {run.path} have changed since it began: give back what was there, or start a new run"
        )


def summary(data: ClipDataset, tokenizer: FrameTokenizer) -> str:
    """One line of what is trained on."""
    known = [f"{name} ({size} values)" for name, size in data.sizes.items() if size]
    beside = f", with {' and '.join(known)}" if known else ""
    grid = " x ".join(map(str, tokenizer.grid))
    apart = "" if data.stride == 1 else f", {data.stride} apart"
    return f"{len(data)} clips of {data.frames} frames{apart}, {grid} of {tokenizer.vocabulary} codes{beside}"


def open_panels(config: DictConfig, objective: nn.Module, data: ClipDataset, folder: Path, show: Show) -> list[Monitor]:
    """Pictures while it trains and at the end, where the objective can predict any.

    Of clips that are held out, where any are.
    """
    if not hasattr(objective, "predict"):
        return []
    seed = derive_seed(int(config.seed), "holdout")
    shown = data.hold_out(float(config.holdout), seed=seed)[1] if config.holdout else data
    indices = np.linspace(0, len(shown) - 1, min(PICTURES, len(shown))).astype(np.int64)
    context = getattr(objective, "context", None) or config.video.context
    if not context:
        return []
    every = int(config.train.steps) if config.panels_every is None else int(config.panels_every)
    return [
        ClipPanels(shown.batch(indices), folder, context=int(context), every=every, seed=int(config.seed), show=show)
    ]
