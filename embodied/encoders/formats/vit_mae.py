"""ViT-MAE of transformers (He et al. 2022).

Its position table is a parameter that nothing trains. Released ones hold MAE's sine-cosine table, column first; a model
built from a config in transformers 5.23 and 5.24 holds zeros: the encoder that comes of it has no positions.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.encoders.formats.arguments import PLAIN, common_arguments, common_settings
from embodied.encoders.formats.layout import Layout, separate_qkv

CONFIG, MODEL, PREFERENCE = "ViTMAEConfig", "ViTMAEModel", 1
FITS: dict[str, Container[Any]] = PLAIN


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `ViTMAEModel`."""
    return Layout(
        outer={
            "embed": "embeddings.patch_embeddings.projection",
            "class_token": "embeddings.cls_token",
            "positions": "embeddings.position_embeddings",
            "norm": "layernorm",
        },
        blocks="layers",
        block={
            "norm1": "layernorm_before",
            "project": "attention.o_proj",
            "norm2": "layernorm_after",
            "mlp.0": "mlp.fc1",
            "mlp.2": "mlp.fc2",
        },
        qkv=separate_qkv("attention"),
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config; which positions they are, the table itself tells."""
    return common_arguments(config)


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments. Nothing is masked: the patches still come in a random order, see their `noise`."""
    return {**common_settings(arguments), "mask_ratio": 0.0}
