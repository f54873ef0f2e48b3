"""The layout of timm's vision transformers, which MAE, MVP, VC-1 and DINOv2 release their weights in.

The number of heads is in no tensor: it follows from the width, unless it is said (MVP's ViT-S has 12, not 6).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from embodied.core.errors import UserError
from embodied.encoders.formats.layout import Layout
from embodied.models.presets import VITS

HEADS = {size["width"]: size["heads"] for name, size in VITS.items() if name.startswith("vit_")}
_REGISTERS = ("reg_token", "register_tokens")  # timm's name, DINOv2's
EPS = 1e-6


def layout(state: Mapping[str, Tensor]) -> Layout:
    """Names in these weights."""
    registers = next((name for name in _REGISTERS if name in state), _REGISTERS[0])
    return Layout(
        outer={
            "embed": "patch_embed.proj",
            "class_token": "cls_token",
            "registers": registers,
            "positions": "pos_embed",
            "norm": "fc_norm" if "fc_norm.weight" in state else "norm",
        },
        blocks="blocks",
        block={
            "norm1": "norm1",
            "project": "attn.proj",
            "norm2": "norm2",
            "mlp.0": "mlp.fc1",
            "mlp.2": "mlp.fc2",
            "scale1": "ls1.gamma",
            "scale2": "ls2.gamma",
        },
        qkv=("attn.qkv",),
        ignored=(r"decoder.*", r"mask_token", r"head\..*", r"pre_logits\..*"),
    )


def arguments(state: Mapping[str, Tensor], *, heads: int | None = None) -> dict[str, Any]:
    """Our arguments from the shapes; `positions` is left out, since the table has to be looked at.

    Raises:
        UserError: a tensor is missing or has other axes, the number of heads cannot be told, or patches do not lie in a
            square.
    """
    for name, axes in (("patch_embed.proj.weight", 4), ("pos_embed", 3), ("blocks.0.mlp.fc1.weight", 2)):
        if name not in state:
            raise UserError(f"these weights lack {name}")
        if state[name].ndim != axes:
            raise UserError(f"{name}: expected {axes} axes, got {list(state[name].shape)}")
    width, _, patch, _ = state["patch_embed.proj.weight"].shape
    count = heads or HEADS.get(width)
    if count is None:
        known = ", ".join(map(str, HEADS))
        raise UserError(f"heads of a width of {width} are not known (known: {known}): say how many")
    classes = state["cls_token"].shape[1] if "cls_token" in state else 0
    patches = state["pos_embed"].shape[1]
    if isqrt(patches) ** 2 != patches:  # rows of class tokens lead, unless the table is of patches only
        patches -= classes
    side = isqrt(patches)
    if side**2 != patches:
        raise UserError(f"pos_embed: expected positions of a square of patches, got {state['pos_embed'].shape[1]}")
    found = {
        "image_size": side * patch,
        "patch_size": patch,
        "width": width,
        "depth": 1 + max(int(found[1]) for name in state if (found := re.match(r"blocks\.(\d+)\.", name))),
        "heads": count,
        "mlp_ratio": state["blocks.0.mlp.fc1.weight"].shape[0] / width,
        "class_tokens": classes,
        "eps": EPS,
        "layer_scale": 1.0 if "blocks.0.ls1.gamma" in state else None,
        "registers": sum(state[name].shape[1] for name in _REGISTERS if name in state),
    }
    return {**found, **({"final_norm": "pooled"} if "fc_norm.weight" in state else {})}


def with_class_rows(state: Mapping[str, Tensor], arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The state with rows of zeros for class tokens, where the table of positions is of patches only."""
    table = state["pos_embed"]
    patches = (arguments["image_size"] // arguments["patch_size"]) ** 2
    missing = arguments["class_tokens"] + patches - table.shape[1]
    if not missing:
        return dict(state)
    return {**state, "pos_embed": torch.cat([table.new_zeros(1, missing, table.shape[2]), table], dim=1)}
