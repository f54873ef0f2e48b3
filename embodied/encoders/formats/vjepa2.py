"""V-JEPA 2's encoder of transformers (Assran et al. 2025) for images: a clip of one tubelet, whose frames are the same.

Its predictor is not taken over; written, it is one without blocks, of zeros. A clip of several tubelets has no form of
ours. Queries and keys of theirs have neighbours as pairs, ours the two halves (`models.positions.pair_order`): their
rows are put in the other order, which attention does not notice. Positions are counted by the image's own grid; theirs
by the grid of the config, so at another resolution than that the two differ.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from embodied.encoders.formats.arguments import PLAIN, SOME, activation, common_settings, square
from embodied.encoders.formats.layout import Layout, read_state, write_state
from embodied.models.positions import pair_order
from embodied.models.vit import VisionTransformer

CONFIG, MODEL, PREFERENCE = "VJEPA2Config", "VJEPA2Model", 10
FITS: dict[str, Container[Any]] = {**PLAIN, "positions": ("clip_rope",), "class_tokens": (0,), "tubelet": SOME}

_TURNED = re.compile(r"encoder\.layer\.\d+\.attention\.(query|key)\.(weight|bias)")


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `VJEPA2Model`."""
    return Layout(
        outer={"embed": "encoder.embeddings.patch_embeddings.proj", "norm": "encoder.layernorm"},
        blocks="encoder.layer",
        block={
            "norm1": "norm1",
            "project": "attention.proj",
            "norm2": "norm2",
            "mlp.0": "mlp.fc1",
            "mlp.2": "mlp.fc2",
        },
        qkv=tuple(f"attention.{role}" for role in ("query", "key", "value")),
        ignored=(r"predictor\..*",),
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {
        "image_size": square(config.crop_size, "crop_size"),
        "patch_size": square(config.patch_size, "patch_size"),
        "width": config.hidden_size,
        "depth": config.num_hidden_layers,
        "heads": config.num_attention_heads,
        "mlp_ratio": config.mlp_ratio,
        "mlp": activation(config),
        "eps": config.layer_norm_eps,
        "positions": "clip_rope",
        "class_tokens": 0,
        "tubelet": config.tubelet_size,
    }


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    found = common_settings(arguments)
    del found["intermediate_size"]
    return {
        **found,
        "crop_size": found.pop("image_size"),
        "mlp_ratio": arguments["mlp_ratio"],
        "tubelet_size": arguments["tubelet"],
        "frames_per_clip": arguments["tubelet"],
        "pred_num_hidden_layers": 0,
    }


def read(state: Mapping[str, Tensor], layout: Layout, vit: VisionTransformer) -> dict[str, Tensor]:
    """Our state dict from theirs; see `layout.read_state`."""
    order = pair_order(vit.head_width)
    return read_state({name: _ordered(name, tensor, order) for name, tensor in state.items()}, layout, vit)


def write(vit: VisionTransformer, layout: Layout, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict from ours; see `layout.write_state`."""
    still = {name: torch.zeros_like(tensor) if layout.ignores(name) else tensor for name, tensor in like.items()}
    found = write_state(vit, layout, still)
    order = pair_order(vit.head_width).argsort()
    return {name: _ordered(name, tensor, order) for name, tensor in found.items()}


def _ordered(name: str, tensor: Tensor, order: Tensor) -> Tensor:
    """The rows of every head of queries and keys in another order, other tensors as they are."""
    if not _TURNED.fullmatch(name):
        return tensor
    return tensor.unflatten(0, (-1, len(order)))[:, order].flatten(0, 1)
