"""BEiT of transformers (Bao et al. 2022), with shared or separate relative position bias, or absolute positions.

With `use_mean_pooling`, as fine-tuned ones have it, patch tokens have no final norm and `pooled` has; `cls` has none.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from torch import Tensor

from embodied.core.errors import UserError
from embodied.encoders.formats.arguments import ANY, PLAIN, common_arguments, common_settings
from embodied.encoders.formats.layout import Layout, separate_qkv, write_state
from embodied.models.vit import VisionTransformer

CONFIG, MODEL, PREFERENCE = "BeitConfig", "BeitModel", 8
FITS: dict[str, Container[Any]] = {
    **PLAIN,
    "layer_scale": ANY,
    "relative_bias": (None, "shared", "block"),
    "positions": ("none", "sincos", "learned"),
    "final_norm": (True, "pooled"),
}
_TABLE = "relative_position_bias_table"


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `BeitModel`."""
    shared = arguments.get("relative_bias") == "shared"
    pooled = arguments.get("final_norm") == "pooled"
    outer = {
        "embed": "embeddings.patch_embeddings.projection",
        "class_token": "embeddings.cls_token",
        "positions": "embeddings.position_embeddings",
        "norm": "pooler.layernorm" if pooled else "layernorm",
    }
    return Layout(
        outer=outer,
        blocks="layers",
        block={
            "norm1": "layernorm_before",
            "project": "attention.o_proj",
            "norm2": "layernorm_after",
            "mlp.0": "mlp.fc1",
            "mlp.2": "mlp.fc2",
            "scale1": "lambda_1",
            "scale2": "lambda_2",
        },
        qkv=separate_qkv("attention"),
        relative=f"shared_position_bias.{_TABLE}" if shared else f"layers.{{}}.relative_position_bias.{_TABLE}",
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config.

    Raises:
        UserError: it has a shared and a separate bias at once.
    """
    if config.use_shared_relative_position_bias and config.use_relative_position_bias:
        raise UserError("a shared and a separate relative position bias at once are not known here")
    bias = "shared" if config.use_shared_relative_position_bias else None
    return {
        **common_arguments(config),
        "positions": "learned" if config.use_absolute_position_embeddings else "none",
        "relative_bias": "block" if config.use_relative_position_bias else bias,
        "layer_scale": config.layer_scale_init_value if config.layer_scale_init_value > 0 else None,
        "final_norm": "pooled" if config.use_mean_pooling else True,
    }


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments."""
    return {
        **common_settings(arguments),
        "use_absolute_position_embeddings": arguments["positions"] != "none",
        "use_relative_position_bias": arguments["relative_bias"] == "block",
        "use_shared_relative_position_bias": arguments["relative_bias"] == "shared",
        "layer_scale_init_value": arguments["layer_scale"] or 0.0,
        "use_mean_pooling": arguments["final_norm"] == "pooled",
        "drop_path_rate": arguments["drop_path"],
    }


def write(vit: VisionTransformer, names: Layout, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their state dict from ours. Their keys have no bias: it adds the same to every logit of a query, so to none."""
    found = write_state(vit, names, like)
    return {name: tensor for name, tensor in found.items() if not name.endswith("k_proj.bias")}
