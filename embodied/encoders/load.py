"""`load_encoder`: one name for any encoder."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import torch
from torch import nn

from embodied.core.errors import UsageError, UserError, unknown_name
from embodied.encoders.artifact import freeze, load_artifact
from embodied.encoders.pixels import PixelEncoder
from embodied.encoders.proprioception import ProprioceptionEncoder
from embodied.encoders.scratch import ConvEncoder
from embodied.encoders.state import StateEncoder
from embodied.encoders.vit import ViTEncoder

BUILTIN = {
    "default": "small ViT, masked autoencoding on Meta-World frames and photographs; shipped with the package",
    "random": "the default's architecture with random weights",
    "pixels": "16x16 raw pixels",
    "state": "privileged simulator state: the oracle, no encoder",
    "proprioception": "nothing: the controller has the robot's own state and no picture",
    "scratch": "small conv net trained along with the controller, with random shifts (learning from scratch)",
}
DEFAULT_FOLDER = files("embodied.encoders") / "assets" / "default"


def load_encoder(spec: str, *, seed: int = 0, state_dim: int | None = None) -> nn.Module:
    """An encoder, frozen unless it is one that trains along (`encoder.trainable`).

    Args:
        spec: a built-in name (see `BUILTIN`), a folder with an artifact, `hf:<folder or repo>` or `timm:<name>`.
        seed: of the weights of `random` and `scratch`; others ignore it.
        state_dim: S of `observation.environment_state`, needed for `state` only.

    Raises:
        UsageError: there is no encoder of that name.
        UserError: the artifact is missing or damaged.
        MissingExtraError: transformers or timm is not installed.
    """
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
    if "/" in spec or spec.startswith((".", "~")) or Path(spec).is_dir():
        return freeze(load_artifact(spec))
    raise unknown_name("encoder", spec, BUILTIN)
