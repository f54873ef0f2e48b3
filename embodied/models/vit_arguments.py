"""What a vision transformer can be made of, said before anything is allocated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

POSITIONS = ("sincos", "learned", "rope", "clip_rope", "none")
RELATIVE = (None, "shared", "block")
FINAL_NORMS = (True, False, "class", "pooled")

_LEAST = {"patch_size": 1, "width": 1, "depth": 1, "heads": 1, "tubelet": 1, "class_tokens": 0, "registers": 0}
_SWITCHES = ("antialias", "qk_norm", "bias", "pre_norm", "checkpointing")


def check_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse values that no `VisionTransformer` can be made of; kinds of MLP are `Block`'s, sizes `grid_of`'s.

    Args:
        arguments: all of them, by name.

    Raises:
        ValueError: one is of another kind, or out of range, or two do not go together.
    """
    for name, least in _LEAST.items():
        value = arguments[name]
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")
    for name in ("mlp_ratio", "eps", "rope_base"):
        if not is_number(arguments[name]) or arguments[name] <= 0:
            raise ValueError(f"{name} must be a positive number, got {arguments[name]!r}")
    if arguments["layer_scale"] is not None and not is_number(arguments["layer_scale"]):
        raise ValueError(f"layer_scale must be a number or None, got {arguments['layer_scale']!r}")
    if not is_number(arguments["drop_path"]) or not 0 <= arguments["drop_path"] < 1:
        raise ValueError(f"drop_path must be in [0, 1), got {arguments['drop_path']!r}")
    for name in _SWITCHES:
        if not isinstance(arguments[name], bool):
            raise ValueError(f"{name} must be true or false, got {arguments[name]!r}")
    _check_choices(arguments)
    _check_heads(arguments["width"], arguments["heads"], arguments["positions"])


def is_number(value: object) -> bool:
    """Whether it is a finite number, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_choices(arguments: Mapping[str, Any]) -> None:
    if arguments["positions"] not in POSITIONS:
        raise ValueError(f"positions must be one of {', '.join(POSITIONS)}, got {arguments['positions']!r}")
    if arguments["relative_bias"] not in RELATIVE:
        raise ValueError(f"relative_bias must be shared, block or None, got {arguments['relative_bias']!r}")
    if arguments["final_norm"] not in FINAL_NORMS:
        raise ValueError(f"final_norm must be true, false, class or pooled, got {arguments['final_norm']!r}")


def _check_heads(width: int, heads: int, positions: str) -> None:
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, got {width}")
    head_width = width // heads
    if positions == "rope" and head_width % 4:
        raise ValueError(f"width / heads must be a multiple of 4 for rotary positions, got {head_width}")
    if positions == "clip_rope" and (head_width < 6 or head_width % 2):
        raise ValueError(f"width / heads must be even and at least 6 for rotary positions of clips, got {head_width}")
