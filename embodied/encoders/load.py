"""`load_encoder`: one name for any encoder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.encoders.artifact import freeze, load_artifact
from embodied.encoders.checkpoint_file import read_checkpoint
from embodied.encoders.layers import LayersEncoder
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.proprioception import ProprioceptionEncoder
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.spec import BUILTIN, SUFFIXES, split_layers, split_layout
from embodied.encoders.state import StateEncoder
from embodied.encoders.vit import ViTEncoder

DEFAULT_FOLDER = files("embodied.encoders") / "assets" / "default"


def load_encoder(spec: str, *, seed: int = 0, state_dim: int | None = None) -> nn.Module:
    """An encoder, frozen unless it is one that trains along (`encoder.trainable`).

    Args:
        spec: a built-in name (see `BUILTIN`), a folder with an artifact, `hf:<folder or repo>`, `timm:<name>`, or a
            file of released weights, `<layout>:<file>` where its layout has to be said (see `encoders.spec`). `@3+6` at
            the end takes the patch tokens after layers 3 and 6 instead of the last (see `encoders.layers`).
        seed: of the weights of `random` and `scratch`; others ignore it.
        state_dim: S of `observation.environment_state`, needed for `state` only.

    Raises:
        UsageError: there is no encoder of that name.
        UserError: the artifact is missing or damaged.
        MissingExtraError: transformers or timm is not installed.
    """
    name, layers = split_layers(spec)
    if not layers:
        return _load(spec, seed, state_dim)
    return freeze(LayersEncoder(encoder=_load(name, seed, state_dim), layers=layers))


def _load(spec: str, seed: int, state_dim: int | None) -> nn.Module:
    if spec == "default":
        folder = Path(str(DEFAULT_FOLDER))
        if not folder.is_dir():
            raise UserError("this installation lacks the default encoder: install the package again")
        return freeze(load_artifact(folder))
    if spec == "state":
        if state_dim is None:
            raise UsageError("encoder=state needs the size of the simulator's state (state_dim)")
        return freeze(StateEncoder(dim=state_dim))
    if spec == "proprioception":
        return freeze(ProprioceptionEncoder())
    if spec == "pixels":
        return freeze(PixelEncoder())
    if spec in ("random", "scratch"):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return freeze(ViTEncoder()) if spec == "random" else ConvEncoder()
    if spec.startswith("hf:"):
        from embodied.encoders.hf import HuggingFaceEncoder

        return freeze(HuggingFaceEncoder(path=spec.removeprefix("hf:")))
    if spec.startswith("timm:"):
        from embodied.encoders.timm import TimmEncoder

        return freeze(TimmEncoder(model=spec.removeprefix("timm:")))
    layout, file = split_layout(spec)
    if layout is not None or (file.endswith(SUFFIXES) and not Path(file).expanduser().is_dir()):
        return freeze(read_checkpoint(file, layout=layout))
    if "/" in spec or spec.startswith((".", "~")) or Path(spec).is_dir():
        return freeze(load_artifact(spec))
    raise unknown_name("encoder", spec, BUILTIN)
