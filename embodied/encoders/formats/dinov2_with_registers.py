"""DINOv2 with registers of transformers (Darcet et al. 2024)."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.encoders.formats import dinov2
from embodied.encoders.formats.arguments import SOME

CONFIG, MODEL, PREFERENCE = "Dinov2WithRegistersConfig", "Dinov2WithRegistersModel", 3
FITS: dict[str, Container[Any]] = {**dinov2.FITS, "registers": SOME}
layout = dinov2.layout


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config."""
    return {**dinov2.arguments(config), "registers": config.num_register_tokens, "antialias": True}


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return {**dinov2.settings(arguments), "num_register_tokens": arguments["registers"]}
