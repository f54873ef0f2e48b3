"""A video objective as its pre-training left it: to predict with, not to train on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from embodied.core.errors import UserError
from embodied.encoders.artifact import fingerprint, freeze, load_artifact
from embodied.encoders.sensorimotor import frame_encoder
from embodied.encoders.tokenizer import require_tokenizer

TRUSTED_PACKAGE = "embodied.objectives."  # a run folder may name classes in here only: it is not code


@dataclass(frozen=True, kw_only=True)
class TrainedVideo:
    """What a run of `embodied pretrain objective=maskvit`, `toto`, ... left.

    Args:
        objective: frozen, with `predict`.
        frames, stride: of the clips that it was trained on.
        context: frames that it predicts from, as it was trained.
        fingerprint: of its encoder, tokenizer included.
    """

    objective: nn.Module
    frames: int
    stride: int
    context: int
    fingerprint: str


def load_trained(run: str | Path) -> TrainedVideo:
    """The objective of a run folder, with the weights of its encoder artifact.

    Raises:
        UserError: it is no finished run of a video objective that predicts frames, or it is damaged.
    """
    folder = Path(run).expanduser()
    path = folder / "config.yaml"
    if not path.is_file():
        raise UserError(f"{folder} is not a run folder: it has no config.yaml written by embodied pretrain")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not readable YAML: copy the run folder again") from error
    objective = config.get("objective") if isinstance(config, dict) else None
    video = config.get("video") if isinstance(config, dict) else None
    if not isinstance(objective, dict) or not isinstance(video, dict) or "_target_" not in objective:
        raise UserError(f"{folder} is not a run of a video objective: it names no objective, or no clips")
    if not (folder / "encoder").is_dir():
        raise UserError(f"{folder} holds no encoder yet: continue it with resume=true")
    encoder = freeze(load_artifact(folder / "encoder"))
    _require_own_tokenizer(folder, encoder)
    built = freeze(_build(folder, objective, encoder))
    return TrainedVideo(
        objective=built,
        frames=int(video["frames"]),
        stride=int(video.get("stride") or 1),
        context=int(getattr(built, "context", None) or video.get("context") or 1),
        fingerprint=fingerprint(encoder),
    )


def _require_own_tokenizer(folder: Path, encoder: nn.Module) -> None:
    """The run names the tokenizer of its codes: an encoder with another one was put there since."""
    path = folder / "phases" / "data.json"
    if path.is_file():
        expected = json.loads(path.read_text(encoding="utf-8"))["result"]["tokenizer"]
        require_tokenizer(frame_encoder(encoder), str(expected), what=f"{folder}")


def _build(folder: Path, settings: Mapping[str, Any], encoder: nn.Module) -> nn.Module:
    target = str(settings["_target_"])
    if not target.startswith(TRUSTED_PACKAGE):
        raise UserError(f"the objective {target!r} is not one of {TRUSTED_PACKAGE}*: refusing to import it")
    module, _, name = target.rpartition(".")
    arguments = {str(key): value for key, value in settings.items() if not str(key).startswith("_")}
    try:
        objective: nn.Module = getattr(import_module(module), name)(encoder, **arguments)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise UserError(f"{folder}: {target} cannot be built with the settings of its run: {error}") from error
    if not hasattr(objective, "predict"):
        raise UserError(f"{folder} is a run of {name}, which does not continue videos: give one of maskvit or toto")
    if lost := [key for key, _ in objective.named_parameters() if not key.startswith("encoder.")]:
        raise UserError(f"{folder}: {name} learned {lost[0]} beside its encoder, which the artifact does not hold")
    return objective
