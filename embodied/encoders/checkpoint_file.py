"""Encoders from files of weights that others released: MAE, MVP, VC-1, DINOv2, R3M and ImageNet's residual networks.

    read_checkpoint("mae_pretrain_vit_base.pth")       # -> a ViTEncoder
    read_checkpoint("vits-mae-hoi.pth", layout="mvp")

Nothing is unpickled: `.pth` and `.pt` are read with `weights_only`, which takes tensors and plain containers.
"""

from __future__ import annotations

import argparse
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from embodied.core.errors import UserError, unknown_name
from embodied.encoders.formats import timm_vit
from embodied.encoders.formats.layout import read_state
from embodied.encoders.formats.position_table import table_kind
from embodied.encoders.resnet import ResNetEncoder
from embodied.encoders.spec import LAYOUTS
from embodied.encoders.vit import ViTEncoder
from embodied.models.presets import VITS

_CONTAINERS = ("model", "state_dict", "r3m", "teacher", "model_state_dict")  # keys under which the weights lie
_PREFIXES = ("module.", "backbone.", "convnet.")
_AMBIGUOUS = VITS["mvp_vit_s"]["width"]  # a ViT-S has 6 heads, and MVP's 12
_RESNETS = {(2, False): "resnet18", (6, False): "resnet34", (6, True): "resnet50"}  # of stage 3, bottlenecks


def read_checkpoint(path: str | Path, *, layout: str | None = None, heads: int | None = None) -> nn.Module:
    """The encoder in a file of weights, not frozen, with ImageNet's mean and standard deviation.

    Args:
        path: `.pth`, `.pt`, `.bin` or `.safetensors`.
        layout: see `encoders.spec.LAYOUTS`; None: told from the names of the tensors.
        heads: of a vision transformer of a width that no published size has.

    Raises:
        UsageError: there is no such layout.
        UserError: the file is missing, damaged, holds more than tensors, or weights of no known layout.
    """
    if layout is not None and layout not in LAYOUTS:
        raise unknown_name("layout of weights", layout, LAYOUTS)
    file = Path(path).expanduser()
    state = _unwrapped(read_tensors(file))
    try:
        if layout is None:
            layout = _layout_of(state, file)
        if layout in ("r3m", "resnet"):
            return _resnet(state)
        if layout == "mvp" and state.get("cls_token", torch.empty(0)).shape[-1:] == (_AMBIGUOUS,):
            heads = heads or VITS["mvp_vit_s"]["heads"]
        return _vit(state, heads)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error


def read_tensors(file: Path) -> Mapping[str, Any]:
    """What a file of weights holds.

    Raises:
        UserError: it is missing, damaged, or holds more than tensors and plain containers.
    """
    if not file.is_file():
        raise UserError(f"there is no file {file}")
    try:
        if file.suffix == ".safetensors":
            return safetensors.torch.load_file(file)
        with torch.serialization.safe_globals([argparse.Namespace]):  # MAE's training keeps its arguments in one
            found = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds more than tensors, which could run code here: "
            "take the weights out of it where you trust it, and save those alone"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError) as error:
        raise UserError(f"{file} is damaged: copy it again") from error
    if not isinstance(found, Mapping):
        raise UserError(f"{file} holds a {type(found).__name__}, expected weights by name")
    return found


def _unwrapped(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors by name, out of the containers and without the prefixes that training loops add."""
    for key in _CONTAINERS:
        if isinstance(content.get(key), Mapping):
            content = content[key]
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        state = inside or state  # beside R3M's network lie its language model and reward
    return state


def _layout_of(state: Mapping[str, Tensor], file: Path) -> str:
    if "patch_embed.proj.weight" in state and "pos_embed" in state:
        if state["patch_embed.proj.weight"].shape[0] == _AMBIGUOUS:
            raise UserError(f"a ViT-S of MAE has 6 heads, of MVP 12: say which, mae:{file} or mvp:{file}")
        return "mae"
    if "conv1.weight" in state and "layer1.0.conv1.weight" in state:
        return "resnet"
    shown = ", ".join(sorted(state)[:3]) or "no tensor"
    raise UserError(f"the layout of these weights is not known (they hold {shown}, ...): one of {', '.join(LAYOUTS)}")


def _vit(state: Mapping[str, Tensor], heads: int | None) -> ViTEncoder:
    arguments = timm_vit.arguments(state, heads=heads)
    state = timm_vit.with_class_rows(state, arguments)
    arguments["positions"] = table_kind(state["pos_embed"].flatten(0, 1), arguments)
    encoder = ViTEncoder(**arguments)
    encoder.vit.load_state_dict(read_state(state, timm_vit.layout(state), encoder.vit))
    return encoder


def _resnet(state: Mapping[str, Tensor]) -> ResNetEncoder:
    blocks = {found[1] for name in state if (found := re.match(r"layer3\.(\d+)\.", name))}
    network = _RESNETS.get((len(blocks), "layer1.0.conv3.weight" in state))
    if network is None:
        raise UserError(f"a residual network of {len(blocks)} blocks in its third stage is none of 18, 34 or 50 layers")
    encoder = ResNetEncoder(network=network)
    weights = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    try:
        encoder.network.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"these are not the weights of a {network}: {str(error).splitlines()[-1].strip()}") from error
    return encoder
