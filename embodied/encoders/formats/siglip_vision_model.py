"""SigLIP's image side of transformers (Zhai et al. 2023), without its head of pooling by attention.

Patch tokens are their `last_hidden_state`; their `pooler_output`, which the head makes, is not to be had.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.encoders.formats import clip_vision_model
from embodied.encoders.formats.arguments import PLAIN, common_arguments, common_settings
from embodied.encoders.formats.layout import Layout

CONFIG, MODEL, PREFERENCE = "SiglipVisionConfig", "SiglipVisionModel", 6
FITS: dict[str, Container[Any]] = {**PLAIN, "class_tokens": (0,)}


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `SiglipVisionModel`, which are CLIP's."""
    clip = clip_vision_model.layout(arguments)
    return Layout(outer=clip.outer, blocks=clip.blocks, block=clip.block, qkv=clip.qkv, ignored=(r"head\..*",))


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {**common_arguments(config), "positions": "learned", "class_tokens": 0}


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return {**common_settings(arguments), "vision_use_head": False}
