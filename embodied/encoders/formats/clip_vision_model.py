"""CLIP's image side of transformers (Radford et al. 2021), without the projection to the space of texts.

`cls` is their `pooler_output`; patch tokens are their `last_hidden_state`, which has no final norm.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor

from embodied.encoders.formats.arguments import PLAIN, common_arguments, common_settings
from embodied.encoders.formats.layout import Layout, separate_qkv, write_state
from embodied.models.vit import VisionTransformer

CONFIG, MODEL, PREFERENCE = "CLIPVisionConfig", "CLIPVisionModel", 7
FITS: dict[str, Container[Any]] = {**PLAIN, "pre_norm": (True,), "final_norm": ("class",)}


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `CLIPVisionModel`."""
    return Layout(
        outer={
            "embed": "embeddings.patch_embedding",
            "class_token": "embeddings.class_embedding",
            "positions": "embeddings.position_embedding.weight",
            "pre_norm": "pre_layrnorm",
            "norm": "post_layernorm",
        },
        blocks="encoder.layers",
        block={
            "norm1": "layer_norm1",
            "project": "self_attn.out_proj",
            "norm2": "layer_norm2",
            "mlp.0": "mlp.fc1",
            "mlp.2": "mlp.fc2",
        },
        qkv=separate_qkv("self_attn"),
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {**common_arguments(config), "positions": "learned", "pre_norm": True, "final_norm": "class"}


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return common_settings(arguments)


def write(vit: VisionTransformer, names: Layout, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict from ours. Their patches have no bias: it is added to the positions, at any resolution."""
    found = write_state(vit, names, like)
    bias = found.pop("embeddings.patch_embedding.bias")
    found["embeddings.position_embedding.weight"][1:] += bias
    return found
