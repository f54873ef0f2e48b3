"""`embodied predict` of GR-1: the frame that it expects some steps later, for every step of episodes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from embodied.bench.prediction.futures import predict_futures
from embodied.bench.prediction.judge import Clips
from embodied.cli.pretrain_gr1 import open_data, read_words
from embodied.cli.pretrain_gr1_start import EXPORT, FROZEN
from embodied.cli.pretrain_settings import expand_data
from embodied.core.checkpoint import load_checkpoint
from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.core.protocols import ACTION, IMAGE_PREFIX, INSTRUCTION, STATE, Reporter
from embodied.core.seeding import derive_seed
from embodied.datasets.loading.future_windows import FutureWindows
from embodied.encoders.artifact import freeze, load_artifact
from embodied.encoders.gr1 import GR1Encoder
from embodied.objectives.video.gr1 import GR1

FRAMES = 16  # of a clip, where nothing is said


@dataclass(frozen=True, kw_only=True)
class FutureClips:
    """Clips, the `fps` of their data, and whether the model was trained on them."""

    clips: Clips
    fps: float
    trained_on: bool


def is_gr1(run: Path) -> bool:
    """Whether a run folder is one of objective=gr1."""
    path = run / "config.yaml"
    if not path.is_file():
        return False
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError):
        return False  # told where the run is read as that of another model
    objective = config.get("objective") if isinstance(config, dict) else None
    return isinstance(objective, dict) and objective.get("_target_") == f"{GR1.__module__}.{GR1.__name__}"


def load_gr1(run: Path) -> tuple[GR1, DictConfig]:
    """The objective of a finished run, decoder of frames included, and the run's settings.

    Raises:
        UserError: the run has not ended, or has learned nothing of frames to come.
    """
    if not ((run / "encoder").is_dir() and (run / EXPORT).is_file()):
        raise UserError(f"{run} holds no {EXPORT} yet: continue it with resume=true")
    before = OmegaConf.load(run / "config.yaml")
    assert isinstance(before, DictConfig)
    settings: Any = OmegaConf.to_container(before.objective)
    if not settings["video_weight"] and before.sequence.start is None:
        raise UserError(f"{run} has learned nothing of frames to come (objective.video_weight=0): give another run")
    encoder = load_artifact(run / "encoder")
    assert isinstance(encoder, GR1Encoder), type(encoder)
    objective = GR1(encoder, **{str(name): value for name, value in settings.items() if name != "_target_"})
    tensors, _ = load_checkpoint(run / EXPORT)
    missing = objective.load_state_dict(tensors, strict=False).missing_keys
    if lost := [name for name in missing if not name.startswith(FROZEN)]:
        raise UserError(f"{run / EXPORT} lacks {lost[0]}: copy the run folder again")
    freeze(objective)
    return objective, before


def future_clips(config: DictConfig, objective: GR1, before: DictConfig, reporter: Reporter) -> FutureClips:
    """The clips of `embodied predict` for a run of gr1.

    Raises:
        UsageError: a setting makes no sense.
        UserError: the data lack what the model reads, or no episode is long enough.
    """
    if config.context is not None:
        raise UsageError(
            f"context: GR-1 predicts every frame {objective.next_frames} ahead from the {before.sequence.context} "
            "steps until then: leave it out"
        )
    cameras = objective.encoder.network.cameras
    camera = str(config.camera or cameras[0])
    if camera not in cameras:
        raise unknown_name("camera of this model", camera, cameras)
    with reporter.phase("data"):
        data, trained_on = open_futures(config, objective, before, reporter)
    with reporter.phase("predict"):
        clips = predict_futures(
            objective,
            data,
            camera=camera,
            frames=FRAMES if config.frames is None else int(config.frames),
            clips=int(config.episodes),
            reporter=reporter,
        )
    rates = [source.windows.materialized.fps for source in data.sources]
    return FutureClips(clips=clips, fps=rates[0], trained_on=trained_on)


def open_futures(
    config: DictConfig, objective: GR1, before: DictConfig, reporter: Reporter
) -> tuple[FutureWindows, bool]:
    """The windows to predict from, and whether the model was trained on them, as for other models of videos.

    Raises:
        UsageError: a setting makes no sense.
        UserError: the data lack what the model reads.
    """
    own = config.data is None
    changes: dict[Any, Any] = {"cache": config.cache, "cache_gb": config.cache_gb, "weights": None}
    chosen = OmegaConf.merge(before, changes if own else {**changes, "data": config.data})
    assert isinstance(chosen, DictConfig)
    network = objective.encoder.network
    unread = [key for key in (STATE, ACTION) if not network.sizes.get(key)]
    chosen.sequence.leave_out = sorted({*map(str, before.sequence.leave_out), *unread})
    chosen.sequence.camera = list(network.cameras)
    paths, _ = expand_data(chosen, kinds="episode store")
    words = read_words(chosen, paths) if INSTRUCTION in network.sizes else None
    device = next(objective.parameters()).device
    data = open_data(chosen, paths, None, objective, words, device=device, reporter=reporter)
    wanted = [key for key in network.sizes if key not in (ACTION, INSTRUCTION)]
    if missing := [key for key in wanted if key not in data.sizes]:
        raise UserError(f"this model reads {missing[0].removeprefix(IMAGE_PREFIX)}, which the data do not have")
    if own and before.get("holdout"):
        held = data.hold_out(float(before.holdout), seed=derive_seed(int(before.seed), "holdout"))[1]
        assert isinstance(held, FutureWindows), type(held)
        return held, False
    return data, own or sorted(paths) == sorted(expand_data(before, kinds="episode store")[0])
