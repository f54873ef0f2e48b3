"""Pixio of transformers (2025): MAE's encoder with several class tokens and learned positions."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.encoders.formats import vit_mae
from embodied.encoders.formats.arguments import PLAIN, SOME, common_arguments, common_settings, whole_ratio

CONFIG, MODEL, PREFERENCE = "PixioConfig", "PixioModel", 5
FITS: dict[str, Container[Any]] = {**PLAIN, "class_tokens": SOME}
layout = vit_mae.layout


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {
        **common_arguments(config),
        "mlp_ratio": float(config.mlp_ratio),
        "positions": "learned",
        "class_tokens": config.n_cls_tokens,
    }


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return {**whole_ratio(common_settings(arguments)), "n_cls_tokens": arguments["class_tokens"]}
