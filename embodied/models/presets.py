"""Published sizes of vision transformers by name."""

from __future__ import annotations

from typing import TypedDict

from embodied.core.errors import unknown_name


class Size(TypedDict):
    """Width, depth and heads, as `VisionTransformer` takes them."""

    width: int
    depth: int
    heads: int


def _size(width: int, depth: int, heads: int) -> Size:
    return {"width": width, "depth": depth, "heads": heads}


# Ti and S: Touvron et al. 2021 (DeiT); B, L, H: Dosovitskiy et al. 2021
VITS: dict[str, Size] = {
    "vit_ti": _size(192, 12, 3),
    "vit_s": _size(384, 12, 6),
    "vit_b": _size(768, 12, 12),
    "vit_l": _size(1024, 24, 16),
    "vit_h": _size(1280, 32, 16),
    # MVP's ViT-S has 12 heads of 32: its weights fit 6 heads of 64 as well, and give garbage there
    "mvp_vit_s": _size(384, 12, 12),
}


def vit_size(name: str) -> Size:
    """Width, depth and heads of `vit_ti`, `vit_s`, `vit_b`, `vit_l`, `vit_h` or `mvp_vit_s`.

    Raises:
        UsageError: there is none of that name.
    """
    if name not in VITS:
        raise unknown_name("size", name, VITS)
    return {**VITS[name]}
