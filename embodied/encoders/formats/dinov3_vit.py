"""DINOv3's vision transformers of transformers (Siméoni et al. 2025); its ConvNeXt is no vision transformer.

The random shift, jitter and scale of its rotary positions in training are not taken over.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Any

from embodied.core.errors import UserError
from embodied.encoders.formats.arguments import SOME, common_arguments, common_settings
from embodied.encoders.formats.dinov2 import FITS as DINOV2_FITS
from embodied.encoders.formats.layout import Layout, separate_qkv

CONFIG, MODEL, PREFERENCE = "DINOv3ViTConfig", "DINOv3ViTModel", 4
FITS: dict[str, Container[Any]] = {**DINOV2_FITS, "registers": (0, *SOME), "positions": ("rope",)}


def layout(arguments: dict[str, Any]) -> Layout:
    """Names of `DINOv3ViTModel`."""
    gated = arguments.get("mlp") == "swiglu"
    mlp = (
        {"mlp.gate": "mlp.gate_proj", "mlp.up": "mlp.up_proj", "mlp.down": "mlp.down_proj"}
        if gated
        else {"mlp.0": "mlp.up_proj", "mlp.2": "mlp.down_proj"}
    )
    return Layout(
        outer={
            "embed": "embeddings.patch_embeddings",
            "class_token": "embeddings.cls_token",
            "registers": "embeddings.register_tokens",
            "norm": "norm",
        },
        blocks="model.layer",
        block={
            "norm1": "norm1",
            "project": "attention.o_proj",
            "norm2": "norm2",
            "scale1": "layer_scale1.lambda1",
            "scale2": "layer_scale2.lambda1",
            **mlp,
        },
        qkv=separate_qkv("attention"),
        ignored=(r".*mask_token", r".*register_tokens"),  # theirs holds an empty one where there are none
    )


def arguments(config: Any) -> dict[str, Any]:
    """Ours from their config.

    Raises:
        UserError: a gated MLP has another activation than silu, which every released one has.
    """
    if config.use_gated_mlp and config.hidden_act != "silu":
        raise UserError(f"hidden_act={config.hidden_act} in a gated MLP is not known here: expected silu")
    return {
        **common_arguments(config, mlp="swiglu" if config.use_gated_mlp else None),
        "positions": "rope",
        "rope_base": float(config.rope_theta),
        "registers": config.num_register_tokens,
        "layer_scale": float(config.layerscale_value),
    }


def settings(arguments: dict[str, Any]) -> dict[str, Any]:
    """Theirs from our arguments; keys keep their bias, since a turned bias is not the same for all of them."""
    gated = arguments["mlp"] == "swiglu"
    return {
        **common_settings(arguments),
        **({"hidden_act": "silu", "use_gated_mlp": True} if gated else {}),
        "key_bias": True,
        "rope_theta": arguments["rope_base"],
        "num_register_tokens": arguments["registers"],
        "layerscale_value": 1.0 if arguments["layer_scale"] is None else arguments["layer_scale"],
    }
