"""The plain vision transformer of transformers (Dosovitskiy et al. 2021), without its pooler.

Written, it holds a pooler with random weights, which their tokens do not depend on.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.encoders.formats import vit_mae
from embodied.encoders.formats.arguments import PLAIN, common_arguments, common_settings
from embodied.encoders.formats.layout import Layout

CONFIG, MODEL, PREFERENCE = "ViTConfig", "ViTModel", 9
FITS: dict[str, Container[Any]] = PLAIN


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `ViTModel`, which are ViT-MAE's."""
    names = vit_mae.layout(arguments)
    ignored = (r".*mask_token", r"pooler\..*")
    return Layout(outer=names.outer, blocks=names.blocks, block=names.block, qkv=names.qkv, ignored=ignored)


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {**common_arguments(config), "positions": "learned"}


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return common_settings(arguments)
